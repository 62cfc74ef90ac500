"""The optimizer's second-order midpoints ¼(w_{t-1} + 2w_t + w_{t+1}).

For an oscillation w̄(t) + (-1)^t δ they return w̄ up to second differences: the optimizer with the
oscillation taken out, without a flow. The loss recorded is the loss *at the midpoint*.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array

from cflows_ray.curvature import value_and_grad
from cflows_ray.flows.process import (
    Ask,
    Counts,
    FlowContext,
    Process,
    Reference,
    Start,
    Step,
    any_rule,
    as_status,
)
from cflows_ray.schema import StepStatus


def init(context: FlowContext, start: Start) -> None:
    """Return no state: every midpoint is computed from the optimizer alone."""
    del context, start


def step(context: FlowContext, state: None, reference: Reference, ask: Ask) -> Step:
    """Measure loss and gradient at the midpoint around step t; nothing at an undefined one."""
    del ask
    value, grad = value_and_grad(context.loss, reference.midpoint)

    def defined(x: Array) -> Array:
        return jnp.where(reference.has_previous, x, jnp.nan)

    return Step(
        state=state,
        params=defined(reference.midpoint),
        observed={},
        record={"train_loss": defined(value), "grad_norm_sq": defined(jnp.vdot(grad, grad))},
        status=as_status(StepStatus.OK),
        counts=Counts.of(gradients=1),
    )


MIDPOINT = Process(
    name="midpoint",
    label="midpoints",
    init=init,
    step=step,
    trivial=("distance_to_midpoint",),
    needs=any_rule,
)
