"""AdamW: Adam with decoupled weight decay."""

from __future__ import annotations

from dataclasses import dataclass

from cflows_ray.declare import weight_decay
from cflows_ray.rules.adam import Adam
from cflows_ray.rules.momentum import decay_strength


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam's step, and - η(t) ω w (Loshchilov, Hutter 2019): the update of `optax.adamw`.

    Hyperparameters are those of `Adam`; the weight decay ω is 1e-4 unless given. The edge of
    stability is at (2 - ηω)(1+β₁)/(1-β₁) of P⁻¹H.

    Example:
        >>> AdamW(lr=1e-3).weight_decay
        0.0001
    """

    weight_decay: float = weight_decay(decay_strength, 1e-4)
