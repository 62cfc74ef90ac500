"""The real optimizer: s_{t+1} = U(s_t, g_t), w_{t+1} = w_t - P(s_{t+1})^{-1} g_t."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cflows_ray.curvature import Linearization, linearize_gradient
from cflows_ray.flows.base import (
    DIVERGED,
    OK,
    Counts,
    FlowContext,
    Record,
    Reference,
    Start,
    StepResult,
    count_critical,
    hold_if,
    undefined_record,
)
from cflows_ray.flows.spectrum import (
    effective_eigenpairs,
    too_few_tracked,
    tracking_row_status,
    worst_required_residual,
)
from cflows_ray.rules import RuleState


class DiscreteState(NamedTuple):
    """w_{t-1}, w_t, s_t (before it absorbs g_t), and the warm start of the recorded eigenvalues."""

    previous: Float[Array, " d"]
    has_previous: Bool[Array, ""]
    params: Float[Array, " d"]
    rule_state: RuleState
    basis: Float[Array, "k d"]
    fresh: Bool[Array, ""]
    status: Int[Array, ""]
    counts: Counts


class LossLimits(NamedTuple):
    """Loss at the common start, and the loss above which the run counts as diverged."""

    start: Float[Array, ""]
    diverged: Float[Array, ""]


def init(context: FlowContext, start: Start) -> DiscreteState:
    """Start at w_0 with s_0."""
    del context
    return DiscreteState(
        previous=start.previous,
        has_previous=start.has_previous,
        params=start.params,
        rule_state=start.rule_state,
        basis=start.basis,
        fresh=jnp.ones((), bool),
        status=jnp.full((), OK, jnp.int32),
        counts=Counts.zero(),
    )


def step(
    context: FlowContext,
    state: DiscreteState,
    limits: LossLimits,
    is_last: Bool[Array, ""],
    wanted: Bool[Array, ""],
) -> tuple[StepResult, Reference]:
    """Make one optimizer step; measure eigenvalues only where the record is wanted.

    Besides the usual result it returns the `Reference` that the other processes read. Where the
    loss is not finite, or above its limit, the state's status becomes DIVERGED and it stays there.
    """
    point = linearize_gradient(context.loss, state.params)
    diverged = ~(point.value <= limits.diverged)
    status = jnp.where(diverged, DIVERGED, state.status).astype(jnp.int32)
    wanted = wanted | diverged
    absorbed = context.rule.update(state.rule_state, point.grad)
    preconditioner = context.rule.preconditioner(absorbed)
    following = state.params - point.grad / preconditioner
    record, basis, hvps, needs_more = jax.lax.cond(
        wanted,
        lambda: _measure(context, state, point, preconditioner),
        lambda: _skip(context, state, point),
    )
    reference = Reference(
        params=state.params,
        midpoint=0.25 * (state.previous + 2.0 * state.params + following),
        has_midpoint=state.has_previous,
        nu=absorbed.nu,
    )
    moved = DiscreteState(
        previous=state.params,
        has_previous=jnp.ones((), bool),
        params=following,
        rule_state=absorbed,
        basis=basis,
        fresh=state.fresh & ~wanted,
        status=status,
        counts=state.counts.plus(gradients=1, hvps=hvps),
    )
    moved = hold_if(is_last | diverged, state, moved)
    record = record._replace(status=jnp.maximum(record.status, status))
    # a spike or a divergence has many large eigenvalues for a few steps: not worth a larger k
    needs_more = needs_more & (point.value <= limits.start)
    return StepResult(moved, state.params, absorbed.nu, record, needs_more), reference


def _measure(
    context: FlowContext, state: DiscreteState, point: Linearization, preconditioner: Array
) -> tuple[Record, Array, Array, Array]:
    options = context.options
    eig = effective_eigenpairs(
        point,
        preconditioner,
        state.basis,
        options,
        tolerance=options.record_eig_tolerance,
        fresh=state.fresh,
    )
    record = undefined_record(state.params, context.num_eigs)._replace(
        train_loss=point.value,
        grad_norm_sq=jnp.vdot(point.grad, point.grad),
        effective_eigs=eig.eigvals,
        num_critical=count_critical(eig.eigvals, options.critical_threshold),
        eig_residual=worst_required_residual(eig, options.near_threshold),
        status=tracking_row_status(eig, options),
    )
    return record, eig.eigvecs, eig.num_products, too_few_tracked(eig, options)


def _skip(
    context: FlowContext, state: DiscreteState, point: Linearization
) -> tuple[Record, Array, Array, Array]:
    record = undefined_record(state.params, context.num_eigs)
    record = record._replace(train_loss=point.value)
    return record, state.basis, jnp.zeros((), jnp.int32), jnp.zeros((), bool)
