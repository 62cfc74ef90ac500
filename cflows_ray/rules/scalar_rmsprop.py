"""Scalar RMSProp: one moving average of the squared gradient norm for all parameters."""

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
class ScalarRMSProp(UpdateRule):
    """ν' = β₂ν + (1-β₂)|g|², P = (√ν' + ε) / η(t) (Cohen et al. 2025, section 4).

    Attributes:
        lr: learning rate η > 0 (the peak, if scheduled).
        beta2: decay β₂ of the second moment, between 0 and 1.
        eps: ε > 0, outside the root.
        bias_correction: use ν / (1 - β₂^t).
        schedule: see `cflows_ray.rules.schedules`.

    Raises `ValueError` if a field is not allowed.

    Example:
        >>> ScalarRMSProp(lr=0.01, beta2=0.99).eps
        1e-08
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
        return RuleState(jnp.zeros((), params.dtype), jnp.zeros((), params.dtype))

    def update(self, state: RuleState, grad: Float[Array, " d"]) -> RuleState:
        """Return t + 1 and β₂ν + (1-β₂)|g|²."""
        nu = self.beta2 * state.nu + (1.0 - self.beta2) * jnp.vdot(grad, grad)
        return RuleState(state.t + 1.0, nu)

    def preconditioner(self, state: RuleState) -> Float[Array, ""]:
        """Return (√ν + ε) / η(t), a scalar."""
        root = root_of_second_moment(state.nu, state.t, self.beta2, self.bias_correction)
        return (root + self.eps) / self.learning_rate(state)

    def drift(
        self, state: RuleState, grad: Float[Array, " d"], grad_variance: Float[Array, " d"]
    ) -> RuleState:
        """Return dt/dt = 1 and dν/dt = (1-β₂)/β₂ (|g|² + tr(HΣH) - ν)."""
        second_moment = jnp.vdot(grad, grad) + jnp.sum(grad_variance)
        rate = (1.0 - self.beta2) / self.beta2
        return RuleState(jnp.ones_like(state.t), rate * (second_moment - state.nu))
