"""Scalar RMSProp: one moving average of the squared gradient norm for all parameters."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from cflows_ray.rules.base import traced_rule
from cflows_ray.rules.moving_average import MovingAverageRule


@traced_rule("lr", "beta2", "eps")
@dataclass(frozen=True)
class ScalarRMSProp(MovingAverageRule):
    """ν' = β₂ν + (1-β₂)|g|², P = (√ν' + ε) / η(t) (Cohen et al. 2025, section 4).

    Attributes:
        lr: learning rate η > 0 (the peak, if scheduled).
        beta2: decay β₂ of the second moment, between 0 and 1.
        eps: ε > 0, outside the root.
        bias_correction: use ν / (1 - β₂^t).
        schedule: see `cflows_ray.schedules`.

    Raises `ValueError` if a field is not allowed.

    Example:
        >>> ScalarRMSProp(lr=0.01, beta2=0.99).eps
        1e-08
    """

    def second_moment(
        self, grad: Float[Array, " d"], grad_variance: Float[Array, " d"]
    ) -> Float[Array, ""]:
        """Return |g|² + tr(HΣH), a scalar."""
        return jnp.vdot(grad, grad) + jnp.sum(grad_variance)
