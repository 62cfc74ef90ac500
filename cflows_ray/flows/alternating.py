"""The alternating flows: mean and swing of the optimizer, each a smooth path; nothing is averaged.

    edge (order 1)           z' = G(z)
    alternating (order 2)    z' = G - ½ DG·G

with z = (z̄, ζ) and G the increments of the exact split (`mean_and_swing.py`), so that one unit
step of Euler on order 1 *is* the optimizer, and the time-one map of order 2 is the optimizer up to
O(G³). Order 1 for gradient descent in polar form v = ρu is the edge flow (Marion, arXiv 2606.18080,
known to us by a summary), hence its name. The flow of order 2, and both for rules with momentum or
a second moment, are derived in docs/rivals-theory.md; we know of no publication.

They predict iterates, c + (-1)ⁿ v, as well as midpoints, c. No eigensolver runs: the linear part of
ζ' is a power iteration, and s_v = vᵀγ / vᵀQ̂v the effective sharpness along the swing.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import pyarrow as pa
from jaxtyping import Array, Float

from cflows_ray.curvature import value_and_grad
from cflows_ray.flows.heun import heun_step, loss_where_wanted
from cflows_ray.flows.mean_and_swing import (
    Seen,
    Split,
    begin_split,
    feed,
    reach_of,
    split_rate,
)
from cflows_ray.flows.process import (
    Ask,
    Counts,
    FlowContext,
    Listed,
    Oscillation,
    Process,
    Reference,
    Start,
    Step,
)
from cflows_ray.flows.seeds import LEAST_LENGTH, length
from cflows_ray.schema import Column, StepStatus

ITERATE_DISTANCE = Column(
    "iterate_distance",
    pa.float64(),
    "param",
    "L2 distance of the predicted iterate, mean and swing together, to the optimizer's",
)


class AlternatingState(NamedTuple):
    """Mean and swing, the sign of the swing at this step, and how far differences reach (θ).

    `before` is the iterate that was predicted one step earlier.
    """

    split: Split
    sign: Float[Array, ""]
    reach: Float[Array, ""]
    before: Float[Array, " d"]


def init(context: FlowContext, start: Start) -> AlternatingState:
    """Split the optimizer's whole state x_0 into mean and swing."""
    grad = value_and_grad(context.loss, start.params)[1]
    split = begin_split(context, start, grad)
    metric = context.rule.edge_preconditioner(start.t, start.absorbed)
    return AlternatingState(split, jnp.ones_like(start.t), reach_of(metric, split), start.previous)


def step(
    order: int, context: FlowContext, state: AlternatingState, reference: Reference, ask: Ask
) -> Step:
    """Advance by one optimizer step; the record is of its beginning."""
    rule, split = context.rule, state.split
    v = split.swing.params

    def metric_of(seen: Seen, t: Float[Array, ""]) -> Float[Array, "..."]:
        return rule.edge_preconditioner(t, seen.absorbed)

    def sharpness(seen: Seen) -> Float[Array, ""]:
        squared = jnp.sum(metric_of(seen, reference.t) * v**2)
        return seen.curvature / jnp.maximum(squared, LEAST_LENGTH**2)

    def fastest(seen: Seen) -> Float[Array, ""]:
        s = jnp.abs(sharpness(seen))
        return s + 0.5 * s**2 if order == 2 else s

    moved = heun_step(
        lambda t, z: split_rate(context, t, z, order, state.reach),
        split,
        reference.t,
        fastest,
        context.options.edge_substeps if order == 1 else context.options.alternating_substeps,
        ask.is_last,
    )
    metric = metric_of(moved.last, reference.t + 1.0)
    stride = moved.place.mean.params - split.mean.params
    following = feed(context.options, metric, moved.place, stride)
    own = loss_where_wanted(context, split.mean.params, ask)
    iterate = split.mean.params + state.sign * v
    finite = jnp.isfinite(moved.first.loss) & jnp.all(jnp.isfinite(split.mean.params))
    return Step(
        state=AlternatingState(following, -state.sign, reach_of(metric, following), iterate),
        params=split.mean.params,
        observed=rule.observed(moved.first.absorbed),
        record={
            **own,
            **_predictions(state, moved.first, metric_of(moved.first, reference.t), reference),
            "effective_sharpness": sharpness(moved.first),
            "iterate_distance": jnp.linalg.norm(iterate - reference.params),
        },
        status=jnp.where(finite, StepStatus.OK, StepStatus.DIVERGED).astype(jnp.int32),
        counts=Counts.of(
            gradients=2 * moved.evaluations + ask.wanted,
            hvps=2 * moved.evaluations if order == 2 else 0,
        ),
        oscillation=Oscillation(v[None], jnp.ones((), jnp.int32)),
        half=0.5 * (state.before + iterate),
    )


def _predictions(
    state: AlternatingState, seen: Seen, metric: Float[Array, "..."], reference: Reference
) -> dict[str, Any]:
    """Return what mean and swing predict; variances only where the swing needs no reach."""
    (c, _), (v, _) = state.split
    squared = jnp.sum(metric * v**2)
    along = jnp.sum(metric * v * (reference.params - c)) / jnp.maximum(
        length(metric, v), LEAST_LENGTH
    )
    resolved = (state.reach <= 1.0).astype(jnp.int32)
    return {
        "train_loss_predicted": seen.loss,
        "grad_norm_sq_predicted": seen.grad_norm_sq,
        "sigma_eigs": Listed(squared[None], resolved),
        "displacement_sq": Listed((along**2)[None], resolved),
        "sigma_trace": jnp.vdot(v, v),
    }


def _process(name: str, label: str, order: int) -> Process:
    return Process(
        name=name,
        label=label,
        init=init,
        step=partial(step, order),
        columns=(ITERATE_DISTANCE,),
    )


ALTERNATING = _process("alternating", "alternating flow", 2)
EDGE = _process("edge", "edge flow", 1)
