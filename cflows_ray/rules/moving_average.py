"""What the RMSProp rules share: a preconditioner made of a moving average of squared gradients."""

from __future__ import annotations

import abc
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from cflows_ray.checks import boolean, decay_rate, positive
from cflows_ray.rules.base import RuleState, UpdateRule
from cflows_ray.schedules import parse_schedule


@dataclass(frozen=True)
class MovingAverageRule(UpdateRule):
    """ν' = β₂ν + (1-β₂) m(g), P = (√ν' + ε) / η(t), with m(g) the squared gradient.

    A subclass says what m is: of each parameter, or of all together.
    """

    lr: float
    beta2: float = 0.99
    eps: float = 1e-8
    bias_correction: bool = False
    schedule: str = "constant"

    def __post_init__(self) -> None:
        positive("lr", self.lr)
        decay_rate("beta2", self.beta2)
        positive("eps", self.eps)  # 0 would divide 0 by 0 where a gradient is always 0
        boolean("bias_correction", self.bias_correction)
        parse_schedule(self.schedule)

    @abc.abstractmethod
    def second_moment(
        self, grad: Float[Array, " d"], grad_variance: Float[Array, " d"]
    ) -> Float[Array, "..."]:
        """Return E m(g + ξ), the shape of ν, ξ of mean 0 and elementwise variance given."""

    def init(self, params: Float[Array, " d"]) -> RuleState:
        """Return t = 0, ν = 0."""
        nu = jnp.zeros_like(self.second_moment(params, params))
        return RuleState(jnp.zeros((), params.dtype), nu)

    def update(self, state: RuleState, grad: Float[Array, " d"]) -> RuleState:
        """Return t + 1 and β₂ν + (1-β₂) m(g)."""
        squared = self.second_moment(grad, jnp.zeros_like(grad))
        kept, taken = self._weights(squared)
        return RuleState(state.t + 1.0, kept * state.nu + taken * squared)

    def preconditioner(self, state: RuleState) -> Float[Array, "..."]:
        """Return (√ν + ε) / η(t), the shape of ν; with bias correction, ν / (1 - β₂^t) for ν."""
        nu = state.nu
        if self.bias_correction:
            t = state.t.astype(jnp.result_type(float))
            nu = nu / (-jnp.expm1(t * jnp.log(self.beta2))).astype(nu.dtype)
        return (_root(nu) + jnp.asarray(self.eps).astype(nu.dtype)) / self.learning_rate(state)

    def drift(
        self, state: RuleState, grad: Float[Array, " d"], grad_variance: Float[Array, " d"]
    ) -> RuleState:
        """Return dt/dt = 1 and dν/dt = (1-β₂)/β₂ (E m(g + ξ) - ν)."""
        rise = self.second_moment(grad, grad_variance) - state.nu
        kept, taken = self._weights(rise)
        return RuleState(jnp.ones_like(state.t), taken / kept * rise)

    def _weights(self, like: Array) -> tuple[Array, Array]:
        """Return β₂ and 1 - β₂ in the dtype of an array.

        The difference is taken before β₂ is rounded: of 1 - 0.999, float32 would keep five digits.
        """
        weights = jnp.asarray(self.beta2), jnp.asarray(1.0 - self.beta2)
        return weights[0].astype(like.dtype), weights[1].astype(like.dtype)


def _root(nu: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return √ν, with derivative 0 where ν = 0.

    A parameter that never saw a gradient (a pixel that is always 0) has ν = 0 for ever; the
    derivative of the root is infinite there and would turn 0 · ∞ into NaN.
    """
    positive = nu > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, nu, 1.0)), 0.0)
