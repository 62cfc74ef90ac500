"""RMSProp: a moving average of the squared gradient for each parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cflows_ray.declare import average_decay, flag, learning_rate, momentum, number, weight_decay
from cflows_ray.rules.momentum import Filter, decay_strength, heavy_ball, momentum_rate
from cflows_ray.rules.preconditioned import PreconditionedRule, corrected, root
from cflows_ray.schedules import schedule

if TYPE_CHECKING:
    import jax.numpy as jnp
    from jaxtyping import Array, Float
else:
    from cflows_ray.lazy import LazyModule

    jnp = LazyModule("jax.numpy")


@dataclass(frozen=True)
class RMSProp(PreconditionedRule):
    """ν' = β₂ν + (1-β₂)g², P = diag(√ν' + ε) / η(t), elementwise (Cohen et al. 2025, section 5).

    The update of `optax.scale_by_rms(decay=beta2, eps=eps, eps_in_sqrt=False)` times -η(t).

    Attributes:
        lr: learning rate η > 0 (the peak, if scheduled).
        beta2: decay β₂ of the second moment, between 0 and 1.
        eps: ε > 0, outside the root.
        bias_correction: use ν / (1 - β₂^t).
        schedule: a text or a function of the step, see `cflows_ray.schedules`.
        momentum: β of a filter of the steps, m' = βm + P⁻¹g, 0 for none (`optax.rmsprop`).
        weight_decay: ω, decoupled.

    Raises `ConfigError` if a field is not allowed.

    Example:
        >>> RMSProp(lr=2e-5).beta2
        0.99
    """

    filters_steps: ClassVar[bool] = True

    lr: float = learning_rate()
    beta2: float = average_decay(0.99, meaning="decay of the second moment", symbol="β₂")
    eps: float = number(  # 0 would divide 0 by 0 where a gradient is always 0
        1e-8, meaning="added to the root of the second moment", symbol="ε"
    )
    bias_correction: bool = flag(False, meaning="second moment divided by 1 - beta2^t")
    schedule: object = schedule()  # text or function; plain, as subclasses show it too
    momentum: float = momentum(momentum_rate)
    weight_decay: float = weight_decay(decay_strength, absent=0.0)

    def gradient_filter(self, t: Float[Array, ""]) -> Filter | None:
        """Return the heavy ball's filter; None without momentum."""
        del t
        if isinstance(self.momentum, float) and self.momentum == 0.0:
            return None
        return heavy_ball(self.momentum)

    def second_moment(
        self, grad: Float[Array, " d"], variance: Float[Array, " d"]
    ) -> Float[Array, "..."]:
        """Return g² + diag(HΣH), shape (d,)."""
        return grad**2 + variance

    def preconditioner(self, t: Float[Array, ""], nu: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return (√ν + ε) / η(t), the shape of ν; with bias correction, ν / (1 - β₂^t) for ν."""
        if self.bias_correction:
            nu = corrected(nu, self.beta2, t)
        return (root(nu) + jnp.asarray(self.eps).astype(nu.dtype)) / self.learning_rate(t)
