"""What keeps a swing alive below the edge, where it would decay to nothing (setting `seed_floor`).

    rounding   |v|² ← |v|² + σ²           σ the spread of `seed_roundings` roundings of w along v
    fraction   |v| ← max(|v|, f |Δc|)     Δc the last step of the mean, f = `seed_fraction`
    none       |v|                        nothing is added

once an optimizer step, lengths in the metric Q̂ (docs/rivals-theory.md, "Seeds"). The first is what
an optimizer's own rounding does to a linear oscillation.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from cflows_ray.flows.process import FlowOptions

# Quotients by |v| are taken with at least this.
LEAST_LENGTH = 1e-30


def length(metric: Float[Array, "..."], v: Float[Array, " d"]) -> Float[Array, ""]:
    """Return |v| in a diagonal metric."""
    return jnp.sqrt(jnp.sum(metric * v**2))


def rounding_length(
    metric: Float[Array, "..."], params: Float[Array, " d"], v: Float[Array, " d"]
) -> Float[Array, ""]:
    """Return the spread σ of one rounding of w along v: σ² = Σ (Q̂ û)_i² ulp(w_i)² / 12, |û| = 1."""
    info = jnp.finfo(params.dtype)
    unit = info.eps * 2.0 ** jnp.floor(jnp.log2(jnp.maximum(jnp.abs(params), info.tiny)))
    along = metric * (v / jnp.maximum(length(metric, v), LEAST_LENGTH))
    return jnp.sqrt(jnp.sum((along * unit) ** 2) / 12.0)


def seed_length(
    options: FlowOptions,
    metric: Float[Array, "..."],
    params: Float[Array, " d"],
    v: Float[Array, " d"],
    stride: Float[Array, " d"],
) -> Float[Array, ""]:
    """Return how long a seed along v is where something must begin; with `none` a rounding as well.

    Args:
        options: the settings of seeds.
        metric: diagonal of Q̂.
        params: where w is rounded.
        v: the direction.
        stride: a step of the mean.
    """
    if options.seed_floor == "fraction":
        return options.seed_fraction * length(metric, stride)
    return options.seed_roundings * rounding_length(metric, params, v)


def seed_factor(
    options: FlowOptions,
    metric: Float[Array, "..."],
    params: Float[Array, " d"],
    v: Float[Array, " d"],
    stride: Float[Array, " d"],
) -> Float[Array, ""]:
    """Return by how much a swing v grows at the end of a step; arguments as for `seed_length`."""
    if options.seed_floor == "none":
        return jnp.ones((), v.dtype)
    size = seed_length(options, metric, params, v, stride)
    ratio = size / jnp.maximum(length(metric, v), LEAST_LENGTH)
    return jnp.maximum(1.0, ratio) if options.seed_floor == "fraction" else jnp.hypot(1.0, ratio)
