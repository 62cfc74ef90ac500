"""Persistence: nothing moves. The null model of a forecast: w(t) = w_0, s(t) = U(s_0, g_0)."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from cflows_ray.curvature import value_and_grad
from cflows_ray.flows.process import (
    Ask,
    Counts,
    FlowContext,
    Process,
    Reference,
    Start,
    Step,
    as_status,
)
from cflows_ray.schema import StepStatus


class PersistentState(NamedTuple):
    """w_0, the state that has absorbed the gradient there, and what was measured, once."""

    params: Float[Array, " d"]
    rule_state: PyTree
    loss: Float[Array, ""]
    grad_norm_sq: Float[Array, ""]


def init(context: FlowContext, start: Start) -> PersistentState:
    """Stay at the start."""
    value, grad = value_and_grad(context.loss, start.params)
    return PersistentState(start.params, start.absorbed, value, jnp.vdot(grad, grad))


def step(context: FlowContext, state: PersistentState, reference: Reference, ask: Ask) -> Step:
    """Say what the start is like."""
    del reference, ask
    return Step(
        state=state,
        params=state.params,
        observed=context.rule.observed(state.rule_state),
        record={
            "train_loss": state.loss,
            "train_loss_predicted": state.loss,
            "grad_norm_sq": state.grad_norm_sq,
            "grad_norm_sq_predicted": state.grad_norm_sq,
        },
        status=as_status(StepStatus.OK),
        counts=Counts.of(),
    )


PERSISTENCE = Process(
    name="persistence", label="persistence", init=init, step=step, trivial=("distance_from_start",)
)
