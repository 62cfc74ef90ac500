"""Gradient descent: P = 1 / η(t)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from cflows_ray.declare import learning_rate
from cflows_ray.rules.preconditioned import PreconditionedRule
from cflows_ray.schedules import schedule

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@dataclass(frozen=True)
class GradientDescent(PreconditionedRule):
    """w' = w - η(t) g, the update of `optax.sgd`.

    Attributes:
        lr: learning rate η > 0 (the peak, if scheduled).
        schedule: see `cflows_ray.schedules`.

    Raises `ConfigError` if a field is not allowed.

    Example:
        >>> GradientDescent(lr=0.02).lr
        0.02
    """

    responds: ClassVar[bool] = False

    lr: float = learning_rate()
    schedule: str = schedule()

    def preconditioner(self, t: Float[Array, ""], nu: Any) -> Float[Array, ""]:
        """Return 1 / η(t)."""
        del nu
        return 1.0 / self.learning_rate(t)
