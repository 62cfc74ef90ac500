"""RMSProp: a moving average of the squared gradient for each parameter."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from cflows_ray.rules.base import (
    RuleState,
    UpdateRule,
    check_moving_average,
    check_positive,
    root_of_second_moment,
    traced_rule,
)
from cflows_ray.rules.schedules import parse_schedule


@traced_rule("lr", "beta2", "eps")
@dataclass(frozen=True)
class RMSProp(UpdateRule):
    """ν' = β₂ν + (1-β₂)g², P = diag(√ν' + ε) / η(t), elementwise (Cohen et al. 2025, section 5).

    The update of `optax.scale_by_rms(decay=beta2, eps=eps, eps_in_sqrt=False)` times -η(t).

    Attributes:
        lr: learning rate η > 0 (the peak, if scheduled).
        beta2: decay β₂ of the second moment, between 0 and 1.
        eps: ε > 0, outside the root.
        bias_correction: use ν / (1 - β₂^t).
        schedule: see `cflows_ray.rules.schedules`.

    Raises `ValueError` if a field is not allowed.

    Example:
        >>> RMSProp(lr=2e-5).beta2
        0.99
    """

    lr: float
    beta2: float = 0.99
    eps: float = 1e-8
    bias_correction: bool = False
    schedule: str = "constant"

    def __post_init__(self) -> None:
        check_positive("lr", self.lr)
        check_moving_average(self.beta2, self.eps, self.bias_correction)
        parse_schedule(self.schedule)

    def init(self, params: Float[Array, " d"]) -> RuleState:
        """Return t = 0, ν = 0."""
        return RuleState(jnp.zeros((), params.dtype), jnp.zeros_like(params))

    def update(self, state: RuleState, grad: Float[Array, " d"]) -> RuleState:
        """Return t + 1 and β₂ν + (1-β₂)g²."""
        nu = self.beta2 * state.nu + (1.0 - self.beta2) * grad**2
        return RuleState(state.t + 1.0, nu)

    def preconditioner(self, state: RuleState) -> Float[Array, " d"]:
        """Return (√ν + ε) / η(t), shape (d,)."""
        root = root_of_second_moment(state.nu, state.t, self.beta2, self.bias_correction)
        return (root + self.eps) / self.learning_rate(state)

    def drift(
        self, state: RuleState, grad: Float[Array, " d"], grad_variance: Float[Array, " d"]
    ) -> RuleState:
        """Return dt/dt = 1 and dν/dt = (1-β₂)/β₂ (g² + diag(HΣH) - ν)."""
        rate = (1.0 - self.beta2) / self.beta2
        return RuleState(jnp.ones_like(state.t), rate * (grad**2 + grad_variance - state.nu))
