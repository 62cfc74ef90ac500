"""The optimizer's second-order midpoints ¼(w_{t-1} + 2w_t + w_{t+1}).

For an oscillation w̄(t) + (-1)^t δ they return w̄ up to second differences: the optimizer with the
oscillation taken out, without a flow. The loss recorded is the loss *at the midpoint*.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cflows_ray.curvature import value_and_grad
from cflows_ray.flows.base import (
    OK,
    Counts,
    Flow,
    FlowContext,
    Reference,
    Start,
    StepResult,
    undefined_record,
)


class MidpointState(NamedTuple):
    """The last midpoint; the next one is computed from the optimizer alone."""

    params: Float[Array, " d"]
    status: Int[Array, ""]
    counts: Counts


def init(context: FlowContext, start: Start) -> MidpointState:
    """Start at w_0, the only iterate known."""
    del context
    return MidpointState(start.params, jnp.full((), OK, jnp.int32), Counts.zero())


def step(
    context: FlowContext,
    state: MidpointState,
    reference: Reference,
    is_last: Bool[Array, ""],
    wanted: Bool[Array, ""],
) -> StepResult:
    """Measure loss and gradient at the midpoint around step t; nothing at an undefined one."""
    del is_last, wanted
    params = reference.midpoint
    value, grad = value_and_grad(context.loss, params)

    def defined(x: Array) -> Array:
        return jnp.where(reference.has_midpoint, x, jnp.nan)

    record = undefined_record(params, context.num_eigs)._replace(
        train_loss=defined(value), grad_norm_sq=defined(jnp.vdot(grad, grad))
    )
    moved = state._replace(params=params, counts=state.counts.plus(gradients=1))
    return StepResult(moved, defined(params), None, record, jnp.zeros((), bool))


MIDPOINT = Flow(init, step)
