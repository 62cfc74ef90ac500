"""Scalar Adam: one moving average of the squared gradient norm for all parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cflows_ray.lazy import LazyModule
from cflows_ray.rules.adam import Adam

if TYPE_CHECKING:
    import jax.numpy as jnp
    from jaxtyping import Array, Float
else:
    jnp = LazyModule("jax.numpy")


@dataclass(frozen=True)
class ScalarAdam(Adam):
    """Adam whose second moment is a scalar, ν' = β₂ν + (1-β₂)|g|²; else as `Adam`.

    Example:
        >>> ScalarAdam(lr=0.01).eps
        1e-08
    """

    def second_moment(
        self, grad: Float[Array, " d"], variance: Float[Array, " d"]
    ) -> Float[Array, ""]:
        """Return |g|² + tr(HΣH), a scalar."""
        return jnp.vdot(grad, grad) + jnp.sum(variance)
