"""A rule from outside: gradient descent with a brake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from cflows_ray.declare import learning_rate, number
from cflows_ray.rules import PreconditionedRule
from cflows_ray.schedules import schedule


@dataclass(frozen=True)
class BrakedDescent(PreconditionedRule):
    """w' = w - η(t) g / strength: P = strength / η(t)."""

    responds: ClassVar[bool] = False

    lr: float = learning_rate()
    strength: float = number(1.0, meaning="how much steps are shortened", symbol="κ")
    schedule: str = schedule()

    def preconditioner(self, t: Any, nu: Any) -> Any:
        """Return strength / η(t)."""
        del nu
        rate = self.learning_rate(t)
        return (self.strength / rate).astype(rate.dtype)  # traced in float64, like every number
