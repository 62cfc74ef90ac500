"""Gradient descent, with heavy-ball or Nesterov momentum if wanted: P = 1 / η(t)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from cflows_ray.checks import require
from cflows_ray.declare import flag, learning_rate, momentum, weight_decay
from cflows_ray.rules.momentum import (
    Filter,
    decay_strength,
    heavy_ball,
    momentum_rate,
    nesterov,
)
from cflows_ray.rules.preconditioned import PreconditionedRule
from cflows_ray.schedules import schedule

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@dataclass(frozen=True)
class GradientDescent(PreconditionedRule):
    """w' = w - η(t) u - η(t) ω w, u the gradient or what a filter makes of it.

    The update of `optax.sgd`: m' = βm + g, and u = m', or βm' + g with Nesterov's momentum. The
    edge of stability is at an ηH of 2, of 2(1+β), and of 2(1+β)/(1+2β).

    Attributes:
        lr: learning rate η > 0 (the peak, if scheduled).
        schedule: a text or a function of the step, see `cflows_ray.schedules`.
        momentum: β of the filter, 0 for none.
        nesterov: Nesterov's momentum instead of the heavy ball.
        weight_decay: ω, decoupled.

    Raises `ConfigError` if a field is not allowed.

    Example:
        >>> GradientDescent(lr=0.02).lr
        0.02
    """

    responds: ClassVar[bool] = False

    lr: float = learning_rate()
    schedule: object = schedule()  # text or function; plain, as subclasses show it too
    momentum: float = momentum(momentum_rate)
    nesterov: bool = flag(False, meaning="Nesterov's momentum, not the heavy ball", absent=False)
    weight_decay: float = weight_decay(decay_strength, absent=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov:
            require(self.momentum != 0.0, "nesterov", "False without momentum", True)

    def gradient_filter(self, t: Float[Array, ""]) -> Filter | None:
        """Return the heavy ball's filter or Nesterov's; None without momentum."""
        del t
        if isinstance(self.momentum, float) and self.momentum == 0.0:
            return None
        return nesterov(self.momentum) if self.nesterov else heavy_ball(self.momentum)

    def rate_at_edge(self, sharpness: float) -> float:
        """Return η = 2 / (Q(-1) S + ω), 2/S without momentum and decay, at the schedule's peak."""
        inverse_gain = 1.0 + self.momentum  # 1 / Q(-1)
        if self.nesterov:
            inverse_gain /= 1.0 + 2.0 * self.momentum
        return 2.0 * inverse_gain / (sharpness + inverse_gain * self.weight_decay)

    def preconditioner(self, t: Float[Array, ""], nu: Any) -> Float[Array, ""]:
        """Return 1 / η(t)."""
        del nu
        return 1.0 / self.learning_rate(t)
