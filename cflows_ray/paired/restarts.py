"""Forecasts: flows begin anew from the optimizer at steps N, 2N, ... (`restart_every`).

A step at which flows begin is gone through twice. First for its rows: the old flows say what they
predict N steps after their start, and nothing moves. Then, with no rows, the new flows make their
first step, together with the optimizer. So there is one row for each process and step; a flow's
first row is that of the step after its start, but for the common start, which has rows of its own.
A flow that can't go on where it starts stays there, and its first row says so.

The new flows start as the first ones did, from the optimizer's iterate, its state, and those one
step before; with the optimizer's eigenvectors, where an eigensolver wants some to begin with.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cflows_ray.curvature import value_and_grad
from cflows_ray.flows import FlowContext, Start


def is_restart(
    step: Int[Array, ""], restart_every: int, is_again: Bool[Array, ""]
) -> Bool[Array, ""]:
    """Say whether flows begin anew at this step, and have not yet."""
    if not restart_every:
        return jnp.zeros((), bool)
    return (step > 0) & (step % restart_every == 0) & ~is_again


def start_at(
    context: FlowContext, t: Float[Array, ""], optimizer: Any, basis: Float[Array, "k d"]
) -> Start:
    """Return the start of flows where the optimizer is, t gradients absorbed with the one there.

    Args:
        context: loss and rule.
        t: as in `Start`.
        optimizer: the optimizer between two steps (`stepping.Optimizer`).
        basis: rows for the eigensolver.
    """
    grad = value_and_grad(context.loss, optimizer.params)[1]
    return Start(
        t=t,
        previous=optimizer.previous,
        previous_state=optimizer.previous_state,
        has_previous=optimizer.has_previous,
        params=optimizer.params,
        rule_state=optimizer.rule_state,
        absorbed=context.rule.absorb(t, optimizer.rule_state, grad),
        basis=basis,
    )


def where_due(is_due: Bool[Array, ""], begin: Any, state: Any) -> Any:
    """Return `begin(state)` where it is due.

    A loop of at most one pass: in a pack a condition would make every member pay at every step.
    """
    return jax.lax.fori_loop(0, is_due.astype(jnp.int32), lambda _, x: begin(x), state)
