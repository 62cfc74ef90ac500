"""Rules with a diagonal preconditioner: w' = w - P(s')⁻¹ u - η ω w.

Parts, each of which may be absent: a second moment ν (a moving average of squared gradients) that P
is made of, a filter of the gradient (momentum, `momentum.py`), and decoupled weight decay ω.

    absorb      ν' = β₂ν + (1-β₂) q(g),   m' = β m + κ g
    step        w' = w - P⁻¹ (a m' + b g) - η ω w
    motion      dν/dt = (1-β₂)/β₂ (E q - ν),   dm/dt = ((β-1) m + κ∇L)/β (m moves first)
                dw/dt = -P⁻¹ [a m + b∇L + Q(1)·½∇<H,Σ>] - η ω w
    edge        Q̂ = (τ/2) P,   τ = (2 - η ω) / Q(-1)

With the factors 1/β₂ and 1/β a flow's averages agree with the discrete ones *after* these have
absorbed the current gradient (docs/theory.md, "Update rules"; docs/momentum-theory.md).

Where the filter follows the preconditioner (`filters_steps`: RMSProp with momentum), m holds P⁻¹g
and the step is the filter's output itself.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from cflows_ray.checks import require
from cflows_ray.lazy import LazyModule
from cflows_ray.rules.momentum import Filter
from cflows_ray.rules.rule import AveragedRule, Moments, Motion

if TYPE_CHECKING:
    import jax.numpy as jnp
    from jaxtyping import Array, Float

else:
    jnp = LazyModule("jax.numpy")


class Averages(NamedTuple):
    """What a preconditioned rule remembers; None for a part that it does not have.

    Attributes:
        momentum: the filter's memory m, shape (d,).
        nu: the second moment ν, scalar or shape (d,).
    """

    momentum: Any
    nu: Any


class PreconditionedRule(AveragedRule):
    """Preconditioned gradient descent; a subclass says what P is, and which parts there are."""

    filters_steps: ClassVar[bool] = False
    """Whether the filter is fed with P⁻¹g and not with g."""

    @abc.abstractmethod
    def preconditioner(self, t: Float[Array, ""], nu: Any) -> Float[Array, "..."]:
        """Return the diagonal of P, scalar or (d,), after t gradients."""

    def second_moment(self, grad: Float[Array, " d"], variance: Float[Array, " d"]) -> Any:
        """Return E q(g + ξ), the shape of ν, ξ of mean 0 and elementwise variance given.

        None where the rule has no second moment.
        """
        del grad, variance
        return None

    def gradient_filter(self, t: Float[Array, ""]) -> Filter | None:
        """Return the filter that the gradient passes; None without momentum."""
        del t
        return None

    # The optimizer --------------------------------------------------------------------------

    def init(self, params: Float[Array, " d"]) -> Averages:
        """Return zeros."""
        nu = self.second_moment(params, params)
        has_filter = self._filter(jnp.ones((), params.dtype)) is not None
        return Averages(
            momentum=jnp.zeros_like(params) if has_filter else None,
            nu=None if nu is None else jnp.zeros_like(nu),
        )

    def absorb(self, t: Float[Array, ""], state: Averages, grad: Float[Array, " d"]) -> Averages:
        """Return m' = β m + κ g and ν' = β₂ν + (1-β₂) q(g)."""
        memory, nu = state
        squared = self.second_moment(grad, jnp.zeros_like(grad))
        if squared is not None:
            kept, taken = self._weights(squared)
            nu = kept * nu + taken * squared
        return Averages(self.remember(t, memory, nu, grad), nu)

    def remember(
        self, t: Float[Array, ""], memory: Any, nu: Any, grad: Float[Array, " d"]
    ) -> Float[Array, " d"] | None:
        """Return m' of the filter, where ν has absorbed the gradient; None without momentum."""
        passed = self._filter(t)
        return None if passed is None else passed.absorb(memory, self._fed(t, nu, grad))

    def step(
        self,
        t: Float[Array, ""],
        params: Float[Array, " d"],
        state: Averages,
        grad: Float[Array, " d"],
    ) -> Float[Array, " d"]:
        """Return w - P⁻¹ (a m' + b g) - η ω w."""
        passed = self._filter(t)
        if passed is None:
            following = params - grad / self.preconditioner(t, state.nu)
        else:
            following = params - self._output(passed, t, state.nu, state.momentum, grad)
        decay = self._decay(t)
        return following if decay is None else following - decay * params

    def observed(self, state: Averages) -> dict[str, Array]:
        """Return ν and m, where the rule has them."""
        return {name: x for name, x in state._asdict().items() if x is not None}

    # The flow -------------------------------------------------------------------------------

    def motion(
        self,
        t: Float[Array, ""],
        params: Float[Array, " d"],
        state: Averages,
        seen: Moments,
        length: float | Float[Array, ""],
    ) -> Motion:
        """Return dw/dt and ds/dt, see the head of this file."""
        passed, rate = self._filter(t), None
        P = self.preconditioner(t, state.nu)
        if passed is None:
            velocity = -(seen.grad + seen.excess) / P
        else:
            rate = passed.drift(state.momentum, self._fed(t, state.nu, seen.grad), length)
            ahead = state.momentum + length * rate
            # the force of the oscillation acts at once, not through the filter's memory
            force = passed.slow_gain * seen.excess / P
            velocity = -self._output(passed, t, state.nu, ahead, seen.grad) - force
        decay = self._decay(t)
        if decay is not None:
            velocity = velocity - decay * params
        return Motion(velocity, Averages(rate, self._second_moment_drift(state.nu, seen)))

    def _second_moment_drift(self, nu: Any, seen: Moments) -> Any:
        squared = self.second_moment(seen.grad, seen.variance)
        if squared is None:
            return None
        rise = squared - nu
        kept, taken = self._weights(rise)
        return taken / kept * rise

    def edge_preconditioner(self, t: Float[Array, ""], state: Averages) -> Float[Array, "..."]:
        """Return (τ/2) P, τ = (2 - η ω) / Q(-1) the critical eigenvalue of P⁻¹H."""
        P = self.preconditioner(t, state.nu)
        passed, decay = self._filter(t), self._decay(t)
        if decay is not None:
            P = P * (1.0 - 0.5 * decay)
        return P if passed is None else P / passed.fast_gain

    def admissible(self, state: Averages, safe: Averages) -> Averages:
        """Return the state, with a second moment that is not positive taken from `safe`."""
        if state.nu is None:
            return state
        return state._replace(nu=jnp.where(state.nu > 0, state.nu, safe.nu))

    def fastest_rate(self, t: Float[Array, ""], sharpness: Float[Array, ""]) -> Float[Array, ""]:
        """Return the sharpness itself, or with momentum the rate of the filter's oscillation."""
        passed = self._filter(t)
        if passed is None:
            return sharpness
        return passed.fastest_rate(jnp.abs(sharpness) / passed.fast_gain)

    def memory_rates(self, state: Averages) -> Averages:
        """Return (1 - β)/β for the filter's memory, however fast, and 0 for ν."""
        passed = self._filter(jnp.ones(()))
        return Averages(
            momentum=None if passed is None else passed.memory_rate,
            nu=None if state.nu is None else 0.0,
        )

    def averaging_rate(self) -> Float[Array, ""] | float:
        """Return (1 - β₂)/β₂, or 0 without a second moment."""
        beta2 = getattr(self, "beta2", None)
        return 0.0 if beta2 is None else (1.0 - beta2) / beta2

    def check_integration(self, longest: float) -> None:
        """Refuse a β₂ so small that substeps of this length step past the second moment's goal."""
        beta2 = getattr(self, "beta2", None)
        if beta2 is not None:
            check_average("beta2", beta2, longest)

    def relaxes(self, t: Float[Array, ""]) -> bool:
        """Say whether there is no filter, which would make the flow oscillate."""
        return self._filter(t) is None

    def growth_gain(self, t: Float[Array, ""]) -> Float[Array, ""]:
        """Return 1 without momentum, 1/(1 + 2Q'(-1)/Q(-1)) with it."""
        passed = self._filter(t)
        return jnp.ones_like(t) if passed is None else passed.growth_gain

    # Parts ----------------------------------------------------------------------------------

    def _filter(self, t: Float[Array, ""]) -> Filter | None:
        """Return the filter with its numbers in the dtype of t."""
        passed = self.gradient_filter(t)
        return None if passed is None else Filter(*(x.astype(t.dtype) for x in passed))

    def _fed(self, t: Float[Array, ""], nu: Any, grad: Float[Array, " d"]) -> Float[Array, " d"]:
        """Return what the filter is fed with."""
        return grad / self.preconditioner(t, nu) if self.filters_steps else grad

    def _output(
        self,
        passed: Filter,
        t: Float[Array, ""],
        nu: Any,
        memory: Float[Array, " d"],
        grad: Float[Array, " d"],
    ) -> Float[Array, " d"]:
        """Return the step that the filter's output makes."""
        moved = passed.output(memory, self._fed(t, nu, grad))
        return moved if self.filters_steps else moved / self.preconditioner(t, nu)

    def _decay(self, t: Float[Array, ""]) -> Float[Array, ""] | None:
        """Return η(t) ω, or None without weight decay."""
        weight_decay = getattr(self, "weight_decay", 0.0)
        if isinstance(weight_decay, int | float) and weight_decay == 0.0:
            return None
        return self.learning_rate(t) * jnp.asarray(weight_decay).astype(t.dtype)

    def _weights(self, like: Array) -> tuple[Array, Array]:
        """Return β₂ and 1 - β₂ in the dtype of an array.

        The difference is taken before β₂ is rounded: of 1 - 0.999, float32 would keep five digits.
        """
        beta2 = getattr(self, "beta2")  # noqa: B009  # rules with a second moment have it
        weights = jnp.asarray(beta2), jnp.asarray(1.0 - beta2)
        return weights[0].astype(like.dtype), weights[1].astype(like.dtype)


def root(nu: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return √ν, with derivative 0 where ν = 0.

    A parameter that never saw a gradient (a pixel that is always 0) has ν = 0 for ever; the
    derivative of the root is infinite there and would turn 0 · ∞ into NaN.
    """
    positive = nu > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, nu, 1.0)), 0.0)


def corrected(average: Array, decay: Any, t: Float[Array, ""]) -> Array:
    """Return an average of t values that began at zero without its bias: ν / (1 - βᵗ)."""
    return average / missing_weight(decay, t).astype(average.dtype)


def missing_weight(decay: Any, t: Float[Array, ""]) -> Array:
    """Return 1 - βᵗ, in the widest floating-point type."""
    t = t.astype(jnp.result_type(float))
    return -jnp.expm1(t * jnp.log(decay))


def check_average(name: str, decay: float, longest: float) -> None:
    """Check that β > h / (1 + h), h the longest substep.

    Below, Euler on dν/dt = (1-β)/β (... - ν) steps past its goal. Raises `ConfigError`.
    """
    least = longest / (1.0 + longest)
    allowed = (
        f"> h / (1 + h) = {least:.3g}, below which the flow of this average is unstable with "
        f"substeps of h = {longest:.3g}"
    )
    require(decay > least, name, allowed, decay)
