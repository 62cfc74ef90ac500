"""Self-stabilisation loops about the edge: how fast the sharpness would rise, and their period.

    r = -(stable part of dA/dt),     T = 2π / √(2 g r) steps,     A = Uᵀ(2Q̂ - H)U

r is the growth rate of the effective sharpness without oscillation (Berthier, arXiv 2609.01034);
the swing grows at g (s - 2) a step just above the edge, g = 1 without momentum
(docs/rivals-theory.md, "What each averages over, and the loop period"). T is the shortest window
over which a flow that averages over the loops may be compared with the optimizer. Of several
critical directions, taken along the eigenvectors of X, the one with the smallest positive r says
it: the longest T.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def loop_columns(
    stable_rate: Float[Array, "k k"],
    directions: Float[Array, "k k"],
    is_critical: Bool[Array, " k"],
    gain: Float[Array, ""],
) -> dict[str, Float[Array, ""]]:
    """Return the columns `growth_rate` and `loop_period`; NaN where they are not defined.

    Args:
        stable_rate: of A in the tracked basis.
        directions: eigenvectors of X in that basis, as columns; the critical ones first.
        is_critical: whether each is one.
        gain: g.
    """
    rates = -jnp.sum(directions * (stable_rate.astype(directions.dtype) @ directions), axis=0)
    rates = jnp.where(is_critical, rates, -jnp.inf)
    rising = jnp.where(rates > 0, rates, jnp.inf)
    slowest = jnp.min(rising)
    rate = jnp.where(jnp.isfinite(slowest), slowest, jnp.max(rates))
    rate = jnp.where(jnp.any(is_critical), rate, jnp.nan)
    period = 2.0 * jnp.pi / jnp.sqrt(2.0 * gain * jnp.where(rate > 0, rate, jnp.nan))
    return {"growth_rate": rate, "loop_period": period.astype(rate.dtype)}
