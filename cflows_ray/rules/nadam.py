"""NAdam: Adam with Nesterov's momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cflows_ray.lazy import LazyModule
from cflows_ray.rules.adam import Adam
from cflows_ray.rules.momentum import Filter
from cflows_ray.rules.preconditioned import missing_weight

if TYPE_CHECKING:
    import jax.numpy as jnp
    from jaxtyping import Array, Float
else:
    jnp = LazyModule("jax.numpy")


@dataclass(frozen=True)
class NAdam(Adam):
    """Adam that looks ahead: u = β₁ m'/(1-β₁ᵗ⁺¹) + (1-β₁) g/(1-β₁ᵗ), t gradients absorbed.

    The update of `optax.nadam` (Dozat 2016). Hyperparameters are those of `Adam`. The edge of
    stability is at 2(1+β₁)/((1-β₁)(1+2β₁)) of P⁻¹H once the corrections have died out.

    Example:
        >>> NAdam(lr=1e-3).beta1
        0.9
    """

    def gradient_filter(self, t: Float[Array, ""]) -> Filter:
        """Return Adam's filter with a look ahead; P has the factor 1 - β₁ᵗ."""
        beta1 = jnp.asarray(self.beta1)
        ahead = missing_weight(beta1, t) / missing_weight(beta1, t + 1.0)
        return Filter(beta1, 1.0 - beta1, beta1 * ahead.astype(beta1.dtype), 1.0 - beta1)
