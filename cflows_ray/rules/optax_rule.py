"""Any optax transformation as a rule: what the processes `discrete` and `midpoint` need of one.

A flow must know how a rule moves in the mean, which the code does not say: it is refused. The edge
of stability is found from the code, where the transformation filters gradients linearly and acts on
every parameter by itself (`response.py`): `optax.sgd`, `rmsprop`, `adam`, `adamw`, `nadam` and
their like. Elsewhere (`optax.lion`, `lamb`) effective sharpness is null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from cflows_ray.checks import ConfigError, require
from cflows_ray.lazy import LazyModule
from cflows_ray.rules.response import Filtering, find_filtering, respond
from cflows_ray.rules.rule import UpdateRule

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
    from jaxtyping import Array, Float, PyTree

    from cflows_ray import curvature, problem
else:
    jax, jnp = LazyModule("jax"), LazyModule("jax.numpy")
    curvature, problem = LazyModule("cflows_ray.curvature"), LazyModule("cflows_ray.problem")

# Parameters of the vector that a transformation is tried out on, if it does not ask for more.
NUM_TRIED = 8


class OptaxState(NamedTuple):
    """A transformation between two gradients, and where it was when it saw the last one.

    Attributes:
        before: its own state before it absorbed the gradient.
        after: its own state now.
        grad: that gradient, shape (d,).
        params: where it was taken, shape (d,).
        update: what the optimizer adds to the parameters, shape (d,).
    """

    before: PyTree
    after: PyTree
    grad: Float[Array, " d"]
    params: Float[Array, " d"]
    update: Float[Array, " d"]


@dataclass(frozen=True)
class OptaxRule(UpdateRule):
    """w' = w + u, u and the state by an optax transformation; made by `from_optax`.

    Attributes:
        transformation: `optax.GradientTransformation`.
        structure: of the parameters as it sees them; None for one vector.
        filtering: how it filters gradients; None where its edge is not known.
    """

    transformation: Any
    structure: Any = None
    filtering: Filtering | None = None

    def __repr__(self) -> str:
        return "from_optax(...)"

    def init(self, params: Float[Array, " d"]) -> OptaxState:
        """Return the transformation's own first state."""
        if self.structure is not None:
            size = self.structure.size
            allowed = f"of {size} numbers, as for from_optax"
            require(params.size == size, "params", allowed, params.size)
        own, none = self._init(params), jnp.zeros_like(params)
        return OptaxState(own, own, none, params, none)

    def absorb(
        self, t: Float[Array, ""], state: OptaxState, grad: Float[Array, " d"]
    ) -> OptaxState:
        """Return the state after a further gradient, taken where the last update has led."""
        del t
        params = state.params + state.update
        update, after = self._update(grad, state.after, params)
        return OptaxState(state.after, after, grad, params, update)

    def step(
        self,
        t: Float[Array, ""],
        params: Float[Array, " d"],
        state: OptaxState,
        grad: Float[Array, " d"],
    ) -> Float[Array, " d"]:
        """Return w + u."""
        del t, grad
        return params + state.update

    def edge_preconditioner(
        self, t: Float[Array, ""], state: OptaxState
    ) -> Float[Array, " d"] | None:
        """Return the diagonal of Q̂, shape (d,), from the response to ±g; None if not known."""
        del t
        if self.filtering is None:
            return None
        at = state.before, state.grad, state.params
        return respond(self._update, self.filtering, *at).metric

    def _init(self, params: Float[Array, " d"]) -> PyTree:
        with curvature.float_mode(params.dtype):
            return self.transformation.init(self._seen(params))

    def _update(
        self, grad: Float[Array, " d"], own: PyTree, params: Float[Array, " d"]
    ) -> tuple[Float[Array, " d"], PyTree]:
        with curvature.float_mode(params.dtype):
            update, after = self.transformation.update(self._seen(grad), own, self._seen(params))
            flat = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(update)])
            after = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), after, own)
            return flat.astype(params.dtype), after

    def _seen(self, flat: Float[Array, " d"]) -> PyTree:
        """Return a vector as the transformation sees it."""
        return flat if self.structure is None else self.structure.unflatten(flat)


def from_optax(transformation: Any, params: PyTree | None = None) -> OptaxRule:
    """Return a rule for the processes `discrete` and `midpoint` from any optax transformation.

    Args:
        transformation: `optax.GradientTransformation`. It sees the parameters as one vector, which
            makes no difference to one that acts on every number by itself.
        params: parameters of the run, for a transformation that looks at their structure or shapes
            (`optax.adafactor`, `lamb`, masks).

    A program belongs to the object: make it once. Its numbers are not arguments of the program.

    Raises `ConfigError` for what is no transformation, or needs more than gradients and parameters.

    Example:
        >>> import optax
        >>> import jax.numpy as jnp
        >>> from cflows_ray import run_paired, from_optax
        >>> result = run_paired(lambda w: jnp.sum(w**2), jnp.ones(3),
        ...     from_optax(optax.sgd(0.1, momentum=0.5)), flows=("midpoint",), steps=5)
        >>> top = result.steps.effective_sharpness.iloc[0]  # ηλ/(1+β)
        >>> round(float(top), 4)
        0.1333
    """
    if not (callable(getattr(transformation, "init", None)) and hasattr(transformation, "update")):
        raise ConfigError(f"transformation must be one of optax, got {transformation!r}")
    structure = None if params is None else problem.ParamStructure.of(params, "float64")
    rule = OptaxRule(transformation, structure)
    size = NUM_TRIED if structure is None else structure.size
    try:
        with curvature.float_mode("float64"):
            filtering = find_filtering(rule._init, rule._update, size)
    except (TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"transformation must need gradients and parameters only, got one that fails: {reason}"
        ) from error
    return OptaxRule(transformation, structure, filtering)
