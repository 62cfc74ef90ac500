"""The optimizer itself: what is measured at its iterates.

The harness makes its steps, s' = U(s, g) and w' = step(w, s', g), and shows them as a `Reference`;
here stands what its rows say: loss, gradient norm, effective eigenvalues.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from cflows_ray.flows.process import (
    Ask,
    Counts,
    FlowContext,
    Process,
    Recorded,
    Reference,
    Start,
    Step,
    Tracked,
    any_rule,
    as_status,
    spectrum_columns,
)
from cflows_ray.flows.spectrum import (
    effective_eigenpairs,
    too_few_tracked,
    tracking_row_status,
    worst_required_residual,
)
from cflows_ray.schema import StepStatus


def init(context: FlowContext, start: Start) -> Tracked:
    """Start with random eigenvectors."""
    del context
    return Tracked.begin(start.basis)


def step(context: FlowContext, state: Tracked, reference: Reference, ask: Ask) -> Step:
    """Measure the iterate; its eigenvalues only where the record is wanted."""
    record, tracked, hvps, status, needs_more = jax.lax.cond(
        ask.wanted,
        lambda: _measure(context, state, reference),
        lambda: _skip(context, state, reference),
    )
    return Step(
        state=tracked,
        params=reference.params,
        observed=context.rule.observed(reference.state),
        record=record,
        status=status,
        counts=Counts.of(gradients=1, hvps=hvps),
        # a spike or a divergence has many large eigenvalues for a few steps: not worth a larger k
        needs_more_eigs=needs_more & ~reference.has_spiked,
    )


Measured = tuple[Recorded, Tracked, Array, Array, Array]


def _measure(context: FlowContext, state: Tracked, reference: Reference) -> Measured:
    options, point = context.options, reference.linear
    record: dict[str, Any] = {
        "train_loss": point.value,
        "grad_norm_sq": jnp.vdot(point.grad, point.grad),
    }
    metric = context.rule.edge_preconditioner(reference.t, reference.state)
    if metric is None:  # where the edge is, is not known: nothing to track
        none = jnp.zeros((), jnp.int32)
        return record, state, none, as_status(StepStatus.OK), jnp.zeros((), bool)
    eig = effective_eigenpairs(
        point, metric, state, options, tolerance=options.record_eig_tolerance
    )
    record |= {
        "eig_residual": worst_required_residual(eig, options.near_threshold),
        **spectrum_columns(eig.eigvals, options.critical_threshold),
    }
    tracked = Tracked(eig.eigvecs, eig.eigvals, jnp.zeros((), bool))
    status = tracking_row_status(eig, options)
    return record, tracked, eig.num_products, status, too_few_tracked(eig, options)


def _skip(context: FlowContext, state: Tracked, reference: Reference) -> Measured:
    """Return what `_measure` returns, with nothing measured but the loss."""
    shapes = jax.eval_shape(lambda: _measure(context, state, reference)[0])
    record = jax.tree.map(lambda x: jnp.full(x.shape, _NOTHING[x.dtype.kind], x.dtype), shapes)
    record["train_loss"] = reference.linear.value
    none = jnp.zeros((), jnp.int32)
    return record, state, none, as_status(StepStatus.OK), jnp.zeros((), bool)


_NOTHING = {"f": jnp.nan, "i": -1}

DISCRETE = Process(
    name="discrete",
    label="optimizer",
    init=init,
    step=step,
    trivial=(
        "distance_to_discrete",
        "distance_to_half",
        "output_distance",
        "nu_rel_error",
        "momentum_rel_error",
    ),
    needs=any_rule,
)
