"""The stable flow: gradient flow in the optimizer's own metric.

    dw/dt = -P(s)^{-1} ∇L(w),     ds/dt = f(s, ∇L(w))

It ignores the oscillation, so past the edge of stability its effective sharpness goes on rising and
it leaves the optimizer behind. Integrated by Euler with max(4, substeps, ⌈2 × effective sharpness⌉)
substeps an optimizer step, which keeps the integrator itself stable.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cflows_ray.curvature import linearize_gradient, value_and_grad
from cflows_ray.flows.base import (
    DIVERGED,
    OK,
    STOPPED,
    Counts,
    Flow,
    FlowContext,
    Reference,
    Start,
    StepResult,
    count_critical,
    hold_if,
    undefined_record,
)
from cflows_ray.flows.spectrum import (
    effective_eigenpairs,
    eig_row_status,
    worst_required_residual,
)
from cflows_ray.rules import RuleState

MIN_SUBSTEPS = 4


class StableState(NamedTuple):
    """w(t), s(t), the eigensolver's warm start, status and counts."""

    params: Float[Array, " d"]
    rule_state: RuleState
    basis: Float[Array, "k d"]
    fresh: Bool[Array, ""]
    status: Int[Array, ""]
    counts: Counts


def init(context: FlowContext, start: Start) -> StableState:
    """Start at (w_0, U(s_0, g_0))."""
    del context
    return StableState(
        params=start.params,
        rule_state=start.absorbed,
        basis=start.basis,
        fresh=jnp.ones((), bool),
        status=jnp.full((), OK, jnp.int32),
        counts=Counts.zero(),
    )


def euler_move(
    context: FlowContext, params: Array, rule_state: RuleState, grad: Array, length: Array
) -> tuple[Array, RuleState]:
    """One Euler substep of the stable flow with the gradient given."""
    rate = context.rule.drift(rule_state, grad, jnp.zeros_like(grad))
    moved = params - length * grad / context.rule.preconditioner(rule_state)
    return moved, jax.tree.map(lambda s, ds: s + length * ds, rule_state, rate)


def step(
    context: FlowContext,
    state: StableState,
    reference: Reference,
    is_last: Bool[Array, ""],
    wanted: Bool[Array, ""],
) -> StepResult:
    """Advance by one optimizer step, or stop where the effective sharpness passes its limit."""
    del reference, wanted
    options = context.options
    point = linearize_gradient(context.loss, state.params)
    preconditioner = context.rule.preconditioner(state.rule_state)
    # only the top eigenvalue decides the substeps; the others are tracked without being waited for
    eig = effective_eigenpairs(
        point,
        preconditioner,
        state.basis,
        options,
        tolerance=options.record_eig_tolerance,
        fresh=state.fresh,
        near_threshold=jnp.inf,
    )
    sharpness = eig.eigvals[0]
    finite = jnp.isfinite(point.value) & jnp.isfinite(sharpness)
    status = jnp.where(sharpness > options.sharpness_limit, STOPPED, OK)
    status = jnp.where(finite, status, DIVERGED).astype(jnp.int32)

    least = max(MIN_SUBSTEPS, options.substeps)
    substeps = jnp.maximum(least, jnp.ceil(2.0 * sharpness)).astype(jnp.int32)
    substeps = jnp.where((status == OK) & ~is_last, substeps, 1)
    length = 1.0 / substeps.astype(state.params.dtype)

    def substep(_: Array, carry: tuple[Array, RuleState]) -> tuple[Array, RuleState]:
        params, rule_state = carry
        grad = value_and_grad(context.loss, params)[1]
        return euler_move(context, params, rule_state, grad, length)

    first = euler_move(context, state.params, state.rule_state, point.grad, length)
    params, rule_state = jax.lax.fori_loop(1, substeps, substep, first)

    norm_sq = jnp.vdot(point.grad, point.grad)
    record = undefined_record(state.params, context.num_eigs)._replace(
        train_loss=point.value,
        train_loss_predicted=point.value,
        grad_norm_sq=norm_sq,
        grad_norm_sq_predicted=norm_sq,
        effective_eigs=eig.eigvals,
        num_critical=count_critical(eig.eigvals, options.critical_threshold),
        eig_residual=worst_required_residual(eig, jnp.inf),
        status=jnp.maximum(status, eig_row_status(eig)),
    )
    moved = StableState(
        params=params,
        # t is a count: set, not summed up from rounded substeps
        rule_state=rule_state._replace(t=state.rule_state.t + 1.0),
        basis=eig.eigvecs,
        fresh=jnp.zeros((), bool),
        status=status,
        counts=state.counts.plus(gradients=substeps, hvps=eig.num_products),
    )
    moved = hold_if(is_last | (status != OK), state, moved)
    return StepResult(moved, state.params, state.rule_state.nu, record, jnp.zeros((), bool))


STABLE = Flow(init, step)
