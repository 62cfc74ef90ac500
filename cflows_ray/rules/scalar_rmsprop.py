"""Scalar RMSProp: one moving average of the squared gradient norm for all parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cflows_ray.rules.rmsprop import RMSProp

if TYPE_CHECKING:
    import jax.numpy as jnp
    from jaxtyping import Array, Float
else:
    from cflows_ray.lazy import LazyModule

    jnp = LazyModule("jax.numpy")


@dataclass(frozen=True)
class ScalarRMSProp(RMSProp):
    """ν' = β₂ν + (1-β₂)|g|², P = (√ν' + ε) / η(t) (Cohen et al. 2025, section 4).

    Hyperparameters are those of `RMSProp`.

    Example:
        >>> ScalarRMSProp(lr=0.01, beta2=0.99).eps
        1e-08
    """

    def second_moment(
        self, grad: Float[Array, " d"], variance: Float[Array, " d"]
    ) -> Float[Array, ""]:
        """Return |g|² + tr(HΣH), a scalar."""
        return jnp.vdot(grad, grad) + jnp.sum(variance)
