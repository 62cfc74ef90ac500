"""Adam: moving averages of the gradient and of its square, both without their bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cflows_ray.declare import average_decay, learning_rate, number, weight_decay
from cflows_ray.lazy import LazyModule
from cflows_ray.rules.momentum import Filter, decay_strength
from cflows_ray.rules.preconditioned import (
    PreconditionedRule,
    corrected,
    missing_weight,
    root,
)
from cflows_ray.schedules import schedule

if TYPE_CHECKING:
    import jax.numpy as jnp
    from jaxtyping import Array, Float
else:
    jnp = LazyModule("jax.numpy")


@dataclass(frozen=True)
class Adam(PreconditionedRule):
    """m' = β₁m + (1-β₁)g, ν' = β₂ν + (1-β₂)g², w' = w - η m̂ / (√ν̂ + ε) (Kingma, Ba 2015).

    The update of `optax.adam`. P = (√ν̂ + ε)(1 - β₁ᵗ)/η: the first moment's bias correction is a
    scalar and belongs to P. The edge of stability is at 2(1+β₁)/(1-β₁) of P⁻¹H, 38 for β₁ = 0.9.

    Attributes:
        lr: learning rate η > 0 (the peak, if scheduled).
        beta1: decay β₁ of the gradient's average, between 0 and 1.
        beta2: decay β₂ of the second moment, between 0 and 1.
        eps: ε > 0, outside the root.
        schedule: a text or a function of the step, see `cflows_ray.schedules`.
        weight_decay: ω, decoupled.

    Raises `ConfigError` if a field is not allowed.

    Example:
        >>> Adam(lr=1e-3).beta2
        0.999
    """

    lr: float = learning_rate()
    beta1: float = average_decay(0.9, meaning="decay of the gradient's average", symbol="β₁")
    beta2: float = average_decay(0.999, meaning="decay of the second moment", symbol="β₂")
    eps: float = number(1e-8, meaning="added to the root of the second moment", symbol="ε")
    schedule: object = schedule()  # text or function; plain, as subclasses show it too
    weight_decay: float = weight_decay(decay_strength)

    def gradient_filter(self, t: Float[Array, ""]) -> Filter:
        """Return m' = β₁m + (1-β₁)g, u = m'."""
        del t
        beta1 = jnp.asarray(self.beta1)
        return Filter(beta1, 1.0 - beta1, jnp.ones_like(beta1), jnp.zeros_like(beta1))

    def second_moment(
        self, grad: Float[Array, " d"], variance: Float[Array, " d"]
    ) -> Float[Array, "..."]:
        """Return g² + diag(HΣH), shape (d,)."""
        return grad**2 + variance

    def preconditioner(self, t: Float[Array, ""], nu: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return (√ν̂ + ε)(1 - β₁ᵗ) / η(t), the shape of ν."""
        eps = jnp.asarray(self.eps).astype(nu.dtype)
        unbiased = root(corrected(nu, self.beta2, t)) + eps
        return unbiased * missing_weight(self.beta1, t).astype(nu.dtype) / self.learning_rate(t)
