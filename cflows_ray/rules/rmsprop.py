"""RMSProp: a moving average of the squared gradient for each parameter."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Array, Float

from cflows_ray.rules.base import traced_rule
from cflows_ray.rules.moving_average import MovingAverageRule


@traced_rule("lr", "beta2", "eps")
@dataclass(frozen=True)
class RMSProp(MovingAverageRule):
    """ν' = β₂ν + (1-β₂)g², P = diag(√ν' + ε) / η(t), elementwise (Cohen et al. 2025, section 5).

    The update of `optax.scale_by_rms(decay=beta2, eps=eps, eps_in_sqrt=False)` times -η(t).

    Attributes:
        lr: learning rate η > 0 (the peak, if scheduled).
        beta2: decay β₂ of the second moment, between 0 and 1.
        eps: ε > 0, outside the root.
        bias_correction: use ν / (1 - β₂^t).
        schedule: see `cflows_ray.schedules`.

    Raises `ValueError` if a field is not allowed.

    Example:
        >>> RMSProp(lr=2e-5).beta2
        0.99
    """

    def second_moment(
        self, grad: Float[Array, " d"], grad_variance: Float[Array, " d"]
    ) -> Float[Array, " d"]:
        """Return g² + diag(HΣH), shape (d,)."""
        return grad**2 + grad_variance
