"""A flow from outside: it predicts that nothing moves, and records how wrong that is."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import pyarrow as pa

from cflows_ray.curvature import value_and_grad
from cflows_ray.flows import Ask, Counts, FlowContext, Process, Reference, Start, Step
from cflows_ray.schema import Column, StepStatus


def init(context: FlowContext, start: Start) -> Any:
    """Return the starting point."""
    del context
    return start.params


def step(context: FlowContext, state: Any, reference: Reference, ask: Ask) -> Step:
    """Stay."""
    del ask
    loss, grad = value_and_grad(context.loss, state)
    return Step(
        state=state,
        params=state,
        observed={},
        record={
            "train_loss": loss,
            "grad_norm_sq": jnp.vdot(grad, grad),
            "missed": jnp.linalg.norm(reference.params - state),
        },
        status=jnp.full((), StepStatus.OK, jnp.int32),
        counts=Counts.of(gradients=1),
    )


STANDSTILL = Process(
    name="standstill",
    label="no motion at all",
    init=init,
    step=step,
    columns=(Column("missed", pa.float64(), "param", "how far the optimizer has gone"),),
    needs=lambda _: None,
)
