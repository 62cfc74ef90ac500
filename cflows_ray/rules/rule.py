"""What an update rule is: the optimizer's step, and how it moves in the mean while it oscillates.

The convention, everywhere in this package: **P approximates the Hessian; the step is -P⁻¹g;
gradient descent in that metric is unstable when an eigenvalue of P^{-1/2} H P^{-1/2} exceeds 2.**

A rule owns its state, any pytree of arrays that nobody else looks into, and says

- what the optimizer does: `init`, `absorb` (s' = U(s, g)) and `step` (w'). Enough for the processes
  `discrete` and `midpoint`; that is an `UpdateRule`. It may know its edge of stability besides.
- what a flow must know besides (`AveragedRule`): `motion`, dw/dt and ds/dt as a function of the
  gradient's moments while the iterate oscillates, and `edge_preconditioner`, the metric Q̂ in which
  the edge of stability is at 2. Without momentum Q̂ = P.

Time t counts the gradients that a state has absorbed. The caller keeps it: it advances by 1 with a
step, and at rate 1 along a flow, whatever else a rule averages. Effective quantities at step t are
taken after the state has absorbed the gradient there: with what the step divides by.

Rules are frozen dataclasses. Their hyperparameters are declared (`cflows_ray.declare`), and those
that are traced are arguments of compiled programs (`traced`): another value compiles nothing.
"""

from __future__ import annotations

import abc
import copy
import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from cflows_ray.checks import require
from cflows_ray.declare import check_declared, declared
from cflows_ray.lazy import LazyModule
from cflows_ray.schedules import Schedule, check_factors, factor, parse_schedule

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
    from jaxtyping import Array, Float, PyTree
else:
    jax, jnp = LazyModule("jax"), LazyModule("jax.numpy")


class Moments(NamedTuple):
    """The gradient of an iterate that oscillates about w with covariance Σ.

    Attributes:
        grad: ∇L(w), shape (d,).
        excess: what the oscillation adds to its mean, ½ ∇<H(w), Σ>, shape (d,).
        variance: its elementwise variance, diag(HΣH), shape (d,).
    """

    grad: Float[Array, " d"]
    excess: Float[Array, " d"]
    variance: Float[Array, " d"]

    @classmethod
    def still(cls, grad: Float[Array, " d"]) -> Moments:
        """Return the moments without oscillation."""
        none = jnp.zeros_like(grad)
        return cls(grad, none, none)


class Motion(NamedTuple):
    """Rates of a flow: dw/dt, shape (d,), and ds/dt, a state of rates."""

    params: Float[Array, " d"]
    state: PyTree


class UpdateRule(abc.ABC):
    """An optimizer: s' = U(s, g), w' = step(w, s', g)."""

    lr: float
    schedule: Any  # a text, a function of the step, or in a compiled program a `Schedule`

    def __post_init__(self) -> None:
        check_declared(self)

    @abc.abstractmethod
    def init(self, params: Float[Array, " d"]) -> PyTree:
        """Return the state before the first gradient."""

    @abc.abstractmethod
    def absorb(self, t: Float[Array, ""], state: PyTree, grad: Float[Array, " d"]) -> PyTree:
        """Return U(s, g), the state after a further gradient; t, as in `step`, counts it too."""

    @abc.abstractmethod
    def step(
        self,
        t: Float[Array, ""],
        params: Float[Array, " d"],
        state: PyTree,
        grad: Float[Array, " d"],
    ) -> Float[Array, " d"]:
        """Return w', where the state has absorbed `grad` and t counts it."""

    def observed(self, state: PyTree) -> Mapping[str, Array]:
        """Return what flows predict of the state, by name (`nu`, `momentum`); shapes are free."""
        del state
        return {}

    def learning_rate(self, t: Float[Array, ""]) -> Float[Array, ""]:
        """Return η(t) of the step that follows the t-th gradient."""
        # the learning rate may be float64 where the parameters are float32
        return jnp.asarray(self.lr).astype(t.dtype) * factor(self.schedule, t - 1.0)

    def check_schedule(self, num_steps: int) -> None:
        """Raise `ConfigError` where the schedule is a function that fails within so many steps."""
        check_factors(getattr(self, "schedule", "constant"), num_steps)

    def edge_preconditioner(self, t: Float[Array, ""], state: PyTree) -> Float[Array, "..."] | None:
        """Return the diagonal of Q̂, scalar or (d,), positive; s has absorbed a gradient.

        An eigenvalue of Q̂^{-1/2} H Q̂^{-1/2} above 2 makes the optimizer oscillate. None where that
        is not known: effective eigenvalues are then null.
        """
        del t, state
        return None

    def check_integration(self, longest: float) -> None:
        """Raise `ConfigError` where a flow of this rule can't be integrated with such substeps.

        Args:
            longest: the longest explicit substep, in optimizer steps.
        """
        del longest

    def rate_at_edge(self, sharpness: float) -> float | None:
        """Return the learning rate whose edge of stability is at a Hessian eigenvalue.

        None where that depends on the run, as it does for a preconditioner that adapts.
        """
        del sharpness
        return None


# The smallest and largest normal numbers; below, a processor may take a number for 0.
NORMAL = {"float32": (2.0**-126, (2.0 - 2.0**-23) * 2.0**127), "float64": (2.0**-1022, math.inf)}


def check_range(rule: UpdateRule, dtype: str) -> None:
    """Check that no hyperparameter becomes 0 or infinite in the run's dtype.

    Raises `ConfigError` naming it.

    Example:
        >>> from cflows_ray.rules import RMSProp
        >>> check_range(RMSProp(0.1, eps=1e-50), "float32")
        Traceback (most recent call last):
        cflows_ray.checks.ConfigError: eps must be 1.18e-38 to 3.4e+38 in float32, got 1e-50
    """
    least, most = NORMAL[dtype]
    for name, info in declared(rule).items():
        value = getattr(rule, name)
        if info.traced and isinstance(value, int | float) and value != 0:
            allowed = f"{least:.3g} to {most:.3g} in {dtype}"
            require(least <= abs(value) <= most, name, allowed, value)


class AveragedRule(UpdateRule):
    """A rule whose motion in the mean is known, so that stable and central flow are defined."""

    responds: ClassVar[bool] = True
    """Whether the oscillation changes the rate of Q̂ (through a second moment, say)."""

    @abc.abstractmethod
    def motion(
        self,
        t: Float[Array, ""],
        params: Float[Array, " d"],
        state: PyTree,
        seen: Moments,
        length: float | Float[Array, ""],
    ) -> Motion:
        """Return dw/dt and ds/dt at a point, affine in `seen.excess` and `seen.variance`.

        `length` is that of the explicit substep to be made. A rule with momentum moves the filter's
        memory before the parameters within a substep (docs/momentum-theory.md, "Schemes"); others
        do not look at it. At 0 these are the rates themselves.
        """

    @abc.abstractmethod
    def edge_preconditioner(self, t: Float[Array, ""], state: PyTree) -> Float[Array, "..."]:
        """Return the diagonal of Q̂, scalar or (d,), positive; s has absorbed a gradient."""

    def admissible(self, state: PyTree, safe: PyTree) -> PyTree:
        """Return the state, with what it may not be (a negative variance) taken from `safe`."""
        del safe
        return state

    def fastest_rate(self, t: Float[Array, ""], sharpness: Float[Array, ""]) -> Float[Array, ""]:
        """Return the fastest rate of the stable flow, per step, at an effective sharpness.

        It decides how long a substep may be.
        """
        del t
        return sharpness

    def averaging_rate(self) -> Float[Array, ""] | float:
        """Return the fastest rate, per step, at which an average in the state forgets; 0 for none.

        It decides as well, since the state is integrated explicitly.
        """
        return 0.0

    def memory_rates(self, state: PyTree) -> PyTree:
        """Return the rates r, per step, at which parts of the state relax: ds/dt = F - r s.

        A scalar for each part, which the adaptive scheme, leapfrog and the estimate of the error
        take exactly; 0 where they are not to. A fast memory must say its rate: they look at
        `motion` with a length of 0.
        """
        return jax.tree.map(lambda _: 0.0, state)

    def relaxes(self, t: Float[Array, ""]) -> bool:
        """Say whether the fast rates of the stable flow are real, and `motion` ignores `length`.

        With `stable_scheme="chebyshev"` the flow is then integrated by that scheme, and by leapfrog
        where this is false (docs/theory.md, "Stable flow").
        """
        del t
        return False

    def growth_gain(self, t: Float[Array, ""]) -> Float[Array, ""]:
        """Return g: just above the edge an oscillation grows at g (s - 2) a step."""
        return jnp.ones_like(t)


def traced(rule: UpdateRule, dtype: Any) -> UpdateRule:
    """Return a rule whose traced hyperparameters are arrays: an argument of compiled programs.

    The numbers of a schedule that is a text are arrays as well. One that is a function is part of
    the program, by identity.

    Example:
        >>> from cflows_ray.rules import GradientDescent
        >>> traced(GradientDescent(lr=0.5), "float32").lr
        Array(0.5, dtype=float32)
    """
    _register(type(rule))
    if isinstance(getattr(rule, "schedule", None), str):
        rule, text = copy.copy(rule), rule.schedule
        object.__setattr__(rule, "schedule", parse_schedule(text))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), rule)


_REGISTERED: set[type] = set()


def _register(kind: type) -> None:
    """Make a class of rules a pytree, once.

    Leaves are the traced hyperparameters that are not off. Unflattening bypasses `__init__`:
    tracers must not meet the checks of numbers.
    """
    if kind in _REGISTERED:
        return
    if not _REGISTERED:
        jax.tree_util.register_dataclass(Schedule, ["numbers"], ["kinds"])
    _REGISTERED.add(kind)
    names = [f.name for f in dataclasses.fields(kind)]

    def flatten(rule: Any) -> tuple[tuple, tuple]:
        values = {name: getattr(rule, name) for name in names}
        leaves = [n for n in names if is_traced(rule, n) or isinstance(values[n], Schedule)]
        static = tuple((name, values[name]) for name in names if name not in leaves)
        return tuple(values[name] for name in leaves), (tuple(leaves), static)

    def unflatten(meta: tuple, children: tuple) -> Any:
        rule: Any = object.__new__(kind)
        for name, value in (*zip(meta[0], children, strict=True), *meta[1]):
            object.__setattr__(rule, name, value)
        return rule

    jax.tree_util.register_pytree_node(kind, flatten, unflatten)


def is_traced(rule: UpdateRule, name: str) -> bool:
    """Say whether a hyperparameter is an argument of the program: traced, and not off."""
    info = declared(rule).get(name)
    if info is None or not info.traced:
        return False
    value = getattr(rule, name)
    return not (isinstance(value, int | float) and value == info.off)
