"""Gradient descent: P = 1 / η(t)."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from cflows_ray.checks import positive
from cflows_ray.rules.base import RuleState, UpdateRule, traced_rule
from cflows_ray.schedules import parse_schedule


@traced_rule("lr")
@dataclass(frozen=True)
class GradientDescent(UpdateRule):
    """w' = w - η(t) g, the update of `optax.sgd`.

    Attributes:
        lr: learning rate η > 0 (the peak, if scheduled).
        schedule: see `cflows_ray.schedules`.

    Raises `ValueError` if a field is not allowed.

    Example:
        >>> GradientDescent(lr=0.02).lr
        0.02
    """

    lr: float
    schedule: str = "constant"

    def __post_init__(self) -> None:
        positive("lr", self.lr)
        parse_schedule(self.schedule)

    def init(self, params: Float[Array, " d"]) -> RuleState:
        """Return t = 0; there is no ν."""
        return RuleState(jnp.zeros((), params.dtype), None)

    def update(self, state: RuleState, grad: Float[Array, " d"]) -> RuleState:
        """Return t + 1."""
        del grad
        return RuleState(state.t + 1.0, None)

    def preconditioner(self, state: RuleState) -> Float[Array, ""]:
        """Return 1 / η(t)."""
        return 1.0 / self.learning_rate(state)

    def drift(
        self, state: RuleState, grad: Float[Array, " d"], grad_variance: Float[Array, " d"]
    ) -> RuleState:
        """Return dt/dt = 1."""
        del grad, grad_variance
        return RuleState(jnp.ones_like(state.t), None)
