"""Heun's scheme for flows that choose their substeps by what they see where a step begins.

The alternating, covariance and corrected flows: two evaluations a substep, second order, stable on
the real axis to a rate of 2/h. (Euler with h < 1 would bias the flow of first order towards the
optimizer, which is its Euler with h = 1.) One compiled copy of the evaluation serves both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from cflows_ray.curvature import value_and_grad
from cflows_ray.flows.mean_and_swing import add
from cflows_ray.flows.process import Ask, FlowContext
from cflows_ray.flows.settings import MOST_SUBSTEPS

# Substeps are so many times the fastest rate (½ would be the limit of stability).
SUBSTEPS_PER_RATE = 0.6


class Moved(NamedTuple):
    """Where a step leads; what its first and its last evaluation saw; evaluations made."""

    place: PyTree
    first: Any
    last: Any
    evaluations: Int[Array, ""]


class _Stage(NamedTuple):
    i: Int[Array, ""]
    substeps: Int[Array, ""]
    place: PyTree
    rate: PyTree
    first: Any
    last: Any


def heun_step(
    evaluate: Callable[[Float[Array, ""], PyTree], tuple[PyTree, Any]],
    place: PyTree,
    t: Float[Array, ""],
    fastest: Callable[[Any], Float[Array, ""]],
    least: int,
    is_last: Bool[Array, ""],
) -> Moved:
    """Advance by one optimizer step in N = max(least, ⌈0.6 rate⌉) substeps.

    Args:
        evaluate: `evaluate(t, place) -> (rate, seen)`.
        place: any pytree of floats.
        t: time at its start.
        fastest: the fastest rate, per step, by what the first evaluation saw.
        least: substeps at least.
        is_last: evaluate once, and don't move.
    """
    shapes = jax.eval_shape(evaluate, t, place)
    rate, seen = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def goes_on(stage: _Stage) -> Array:
        return stage.i < jnp.where(is_last, 1, 2 * stage.substeps)

    def body(stage: _Stage) -> _Stage:
        is_first, is_start = stage.i == 0, stage.i % 2 == 0
        done = (stage.i + 1) // 2  # substeps of which the end is known, the present one included
        h = 1.0 / stage.substeps.astype(t.dtype)
        rate, seen = evaluate(t + done.astype(t.dtype) * h, stage.place)
        wanted = jnp.ceil(SUBSTEPS_PER_RATE * fastest(seen))
        wanted = jnp.clip(jnp.nan_to_num(wanted, nan=0.0), least, MOST_SUBSTEPS)
        substeps = jnp.where(is_first, wanted.astype(jnp.int32), stage.substeps)
        h = 1.0 / substeps.astype(t.dtype)
        # ahead by a whole Euler move, and then back by half of it and on by half the second rate
        euler = add(stage.place, rate, h)
        corrected = add(add(stage.place, rate, 0.5 * h), stage.rate, -0.5 * h)
        choose = lambda a, b: jnp.where(is_start, a, b)  # noqa: E731
        return _Stage(
            i=stage.i + 1,
            substeps=substeps,
            place=jax.tree.map(choose, euler, corrected),
            rate=rate,
            first=jax.tree.map(lambda a, b: jnp.where(is_first, a, b), seen, stage.first),
            last=seen,
        )

    begin = _Stage(
        i=jnp.zeros((), jnp.int32),
        substeps=jnp.ones((), jnp.int32),
        place=place,
        rate=rate,
        first=seen,
        last=seen,
    )
    end = jax.lax.while_loop(goes_on, body, begin)
    return Moved(end.place, end.first, end.last, end.i)


def loss_where_wanted(
    context: FlowContext, params: Float[Array, " d"], ask: Ask
) -> dict[str, Array]:
    """Return the columns `train_loss` and `grad_norm_sq` at a point; NaN where not wanted."""
    nothing = jnp.full((), jnp.nan, params.dtype)

    def measure() -> tuple[Array, Array]:
        value, grad = value_and_grad(context.loss, params)
        return value, jnp.vdot(grad, grad)

    value, norm_sq = jax.lax.cond(ask.wanted, measure, lambda: (nothing, nothing))
    return {"train_loss": value, "grad_norm_sq": norm_sq}
