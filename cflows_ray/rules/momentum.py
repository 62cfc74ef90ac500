"""Momentum: a filter that an optimizer passes the gradient through, and its two gains.

    m' = β m + κ g,     u = a m' + b g,     Q(z) = b + aκ / (1 - β/z)

The theory needs the filter at two frequencies (docs/momentum-theory.md): its gain Q(1) for what
stays, and Q(-1) for an oscillation of period two.

| | κ | a | b |
| --- | --- | --- | --- |
| heavy ball | 1 | 1 | 0 |
| Nesterov | 1 | β | 1 |
| Adam | 1-β | 1 | 0 |
| NAdam | 1-β | β (1-βᵗ)/(1-βᵗ⁺¹) | 1-β |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cflows_ray.checks import number
from cflows_ray.lazy import LazyModule

if TYPE_CHECKING:
    import jax.numpy as jnp
    from jaxtyping import Array, Float
else:
    jnp = LazyModule("jax.numpy")


class Filter(NamedTuple):
    """A first-order filter of the gradient; all fields are scalars.

    Example:
        >>> float(heavy_ball(0.5).slow_gain), round(float(heavy_ball(0.5).fast_gain), 4)
        (2.0, 0.6667)
    """

    decay: Float[Array, ""]
    intake: Float[Array, ""]
    of_memory: Float[Array, ""]
    of_gradient: Float[Array, ""]

    def absorb(self, memory: Float[Array, " d"], grad: Float[Array, " d"]) -> Float[Array, " d"]:
        """Return m' = β m + κ g."""
        return self.decay * memory + self.intake * grad

    def output(self, memory: Float[Array, " d"], grad: Float[Array, " d"]) -> Float[Array, " d"]:
        """Return u = a m' + b g."""
        return self.of_memory * memory + self.of_gradient * grad

    def drift(
        self,
        memory: Float[Array, " d"],
        grad: Float[Array, " d"],
        length: float | Float[Array, ""],
    ) -> Float[Array, " d"]:
        """Return the mean of dm/dt = ((β - 1) m + κ g) / β over a substep, g held.

        For m that has absorbed the present gradient. m decays to κg / (1-β) at the rate
        γ = (1-β)/β; over a length h it does (1 - e^{-γh}) of the way, exactly.
        """
        rate = self.memory_rate
        goal = self.intake / (1.0 - self.decay) * grad
        length = jnp.asarray(length, memory.dtype)
        share = jnp.where(length > 0, -jnp.expm1(-rate * length) / length, rate)
        return share * (goal - memory)

    @property
    def memory_rate(self) -> Float[Array, ""]:
        """γ = (1-β)/β, per step: how fast the flow of m forgets."""
        return (1.0 - self.decay) / self.decay

    @property
    def slow_gain(self) -> Float[Array, ""]:
        """Q(1) = b + aκ / (1 - β): what a constant gradient becomes."""
        return self.of_gradient + self.of_memory * self.intake / (1.0 - self.decay)

    @property
    def fast_gain(self) -> Float[Array, ""]:
        """Q(-1) = b + aκ / (1 + β): what a gradient that alternates becomes."""
        return self.of_gradient + self.of_memory * self.intake / (1.0 + self.decay)

    @property
    def growth_gain(self) -> Float[Array, ""]:
        """1/(1 + 2Q'(-1)/Q(-1)), Q'(-1) = -aκβ/(1+β)²: growth a step for each unit above the edge.

        From z - 1 = -Q(z)λ at z = -(1 + ε) (docs/momentum-theory.md, "Two gains").
        """
        slope = -self.of_memory * self.intake * self.decay / (1.0 + self.decay) ** 2
        return 1.0 / (1.0 + 2.0 * slope / self.fast_gain)

    def fastest_rate(self, eigenvalue: Float[Array, ""]) -> Float[Array, ""]:
        """Return a bound on the rates, per step, of the flow along an eigenvector of P⁻¹H.

        dm/dt = ((β-1) m + κλx)/β, dx/dt = -(a m + bλx): the larger of |trace| and √determinant. But
        `drift` integrates the filter's own decay exactly, so no more than Q(1)λ, which is the rate
        of x with a filter that has settled, and λ where β → 0.
        """
        damping = self.memory_rate
        trace = damping + self.of_gradient * eigenvalue
        rotation = self.of_memory * self.intake * eigenvalue / self.decay
        determinant = damping * self.of_gradient * eigenvalue + rotation
        coupled = jnp.maximum(trace, jnp.sqrt(jnp.abs(determinant)))
        return jnp.minimum(coupled, self.slow_gain * eigenvalue)


def heavy_ball(decay: Float[Array, ""] | float) -> Filter:
    """Return m' = β m + g, u = m' (`optax.trace`)."""
    decay = jnp.asarray(decay)
    one, none = jnp.ones_like(decay), jnp.zeros_like(decay)
    return Filter(decay, one, one, none)


def nesterov(decay: Float[Array, ""] | float) -> Filter:
    """Return m' = β m + g, u = β m' + g (`optax.trace(nesterov=True)`)."""
    decay = jnp.asarray(decay)
    one = jnp.ones_like(decay)
    return Filter(decay, one, decay, one)


def momentum_rate(name: str, value: Any) -> float:
    """Check a momentum: 0 leaves the filter out."""
    return number(name, value, ">= 0 and < 1", low=0.0, high=1.0)


def decay_strength(name: str, value: Any) -> float:
    """Check a weight decay: 0 leaves it out."""
    return number(name, value, ">= 0", low=0.0)
