"""The central flow: the time-averaged path of the oscillating optimizer, with its covariance.

    dw/dt = -P^{-1} [∇L + ½ ∇_w <H(w), Σ>],     ds/dt = E f(s, ∇L + Hδ),     Σ = U X Uᵀ

where X is the unique covariance with 0 ⪯ X ⟂ Uᵀ(2P - H)U ⪰ 0 along the flow (Cohen et al. 2025;
docs/theory.md, "Central flow"). One Euler substep of length h freezes the critical directions U
(UᵀPU = I, HU = PUΛ), writes A(t + h) = A₀ + h (stable part) + h B[X] and solves the semidefinite
complementarity problem for X. With no critical direction it is the stable flow.

| symbol | here |
| --- | --- |
| D_ab = ∇_w (u_aᵀ H u_b) | rows of `hessian_drifts`, in svec coordinates |
| B[X] = 2 dP/dt|_X - dH/dt|_X | `response`, m x m on svec coordinates |
| diag(HΣH) | `grad_variance`; from HU, never from U |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cflows_ray.curvature import Linearization, linearize_gradient, third_derivative
from cflows_ray.flows.base import (
    DIVERGED,
    OK,
    SDCP_FAILED,
    Counts,
    Flow,
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
    eig_row_status,
    too_few_tracked,
    worst_required_residual,
)
from cflows_ray.linalg.eigen import EigenResult
from cflows_ray.linalg.sdcp import SDCP_CONVERGED, solve_sdcp
from cflows_ray.linalg.symmetric import num_pairs, pair_indices, smat, svec
from cflows_ray.rules.base import RuleState

Rate = Callable[[Float[Array, " d"]], Float[Array, " d"]]


class CentralState(NamedTuple):
    """w(t), s(t), the warm starts of eigensolver and complementarity solver, status, counts.

    `eigvals` belong to the rows of `basis`, -inf where not known yet; `covariance` is the last X in
    that basis, float64.
    """

    params: Float[Array, " d"]
    rule_state: RuleState
    basis: Float[Array, "k d"]
    eigvals: Float[Array, " k"]
    covariance: Float[Array, "k k"]
    fresh: Bool[Array, ""]
    status: Int[Array, ""]
    counts: Counts


class _Point(NamedTuple):
    """What a substep knows of the loss where it starts."""

    linear: Linearization
    preconditioner: Float[Array, "..."]
    eig: EigenResult
    num_critical: Int[Array, ""]


class _Covariance(NamedTuple):
    """X, how well its problem was solved, and Σ's effect on everything the flow moves."""

    X: Float[Array, "k k"]
    sdcp_residual: Float[Array, ""]
    failed: Bool[Array, ""]
    grad_excess: Float[Array, " d"]  # ½ ∇<H, Σ>
    grad_variance: Float[Array, " d"]  # diag(HΣH)
    num_third: Int[Array, ""]


def init(context: FlowContext, start: Start) -> CentralState:
    """Start at (w_0, U(s_0, g_0)) with Σ = 0."""
    del context
    k = start.basis.shape[0]
    return CentralState(
        params=start.params,
        rule_state=start.absorbed,
        basis=start.basis,
        eigvals=jnp.full((k,), -jnp.inf, start.params.dtype),
        covariance=jnp.zeros((k, k), jnp.float64),
        fresh=jnp.ones((), bool),
        status=jnp.full((), OK, jnp.int32),
        counts=Counts.zero(),
    )


def step(
    context: FlowContext,
    state: CentralState,
    reference: Reference,
    is_last: Bool[Array, ""],
    wanted: Bool[Array, ""],
) -> StepResult:
    """Advance by one optimizer step, substep by substep; the record is of the first substep."""
    del wanted
    substeps = jnp.where(is_last, 1, context.options.substeps)

    def substep(j: Array, carry: tuple) -> tuple:
        return _substep(context, reference, j == 0, *carry)

    blank = undefined_record(state.params, context.num_eigs)
    carry = (state, blank, jnp.zeros((), bool))
    moved, record, needs_more = jax.lax.fori_loop(0, substeps, substep, carry)
    # t is a count: set, not summed up from rounded substeps
    whole_t = moved.rule_state._replace(t=state.rule_state.t + 1.0)
    moved = hold_if(is_last, state, moved._replace(rule_state=whole_t))
    return StepResult(moved, state.params, state.rule_state.nu, record, needs_more)


def _substep(
    context: FlowContext,
    reference: Reference,
    is_first: Bool[Array, ""],
    state: CentralState,
    record: Record,
    needs_more: Bool[Array, ""],
) -> tuple[CentralState, Record, Array]:
    options, rule = context.options, context.rule
    length = 1.0 / options.substeps
    point = _look(context, state, is_first)
    covariance = jax.lax.cond(
        point.num_critical > 0,
        lambda: _solve_covariance(context, state, point, length),
        lambda: _no_covariance(state),
    )
    record = jax.lax.cond(
        is_first, lambda: _record(state, reference, point, covariance), lambda: record
    )
    # one row speaks for all its substeps: keep the worst of what may go wrong
    status = _status(point, covariance)
    residual = worst_required_residual(point.eig, options.near_threshold, top=is_first)
    record = record._replace(
        status=jnp.maximum(record.status, status),
        eig_residual=jnp.fmax(record.eig_residual, residual),
        sdcp_residual=jnp.fmax(record.sdcp_residual, covariance.sdcp_residual),
    )
    grad = point.linear.grad
    rate = rule.drift(state.rule_state, grad, covariance.grad_variance)
    moved = CentralState(
        params=state.params - length * (grad + covariance.grad_excess) / point.preconditioner,
        rule_state=jax.tree.map(lambda s, ds: s + length * ds, state.rule_state, rate),
        basis=point.eig.eigvecs,
        eigvals=point.eig.eigvals,
        covariance=covariance.X,
        fresh=jnp.zeros((), bool),
        status=jnp.where(status == DIVERGED, DIVERGED, state.status).astype(jnp.int32),
        counts=state.counts.plus(1, point.eig.num_products, covariance.num_third),
    )
    return moved, record, needs_more | too_few_tracked(point.eig, options)


def _look(context: FlowContext, state: CentralState, is_first: Bool[Array, ""]) -> _Point:
    """Linearize the loss and refresh the eigenpairs.

    All tracked pairs at the first substep of a step; afterwards those that might become critical
    before the step ends, which are the ones above the tracking threshold.
    """
    options, k = context.options, context.num_eigs
    linear = linearize_gradient(context.loss, state.params)
    preconditioner = context.rule.preconditioner(state.rule_state)
    rising = jnp.sum(state.eigvals > options.tracking_threshold).astype(jnp.int32)
    num_active = jnp.where(is_first, k, rising)
    eig = effective_eigenpairs(
        linear,
        preconditioner,
        state.basis,
        options,
        tolerance=options.eig_tolerance,
        fresh=state.fresh,
        explore=is_first,
        num_active=num_active,
    )
    refreshed = jnp.arange(k) < num_active
    eig = eig._replace(eigvals=jnp.where(refreshed, eig.eigvals, state.eigvals))
    count = count_critical(eig.eigvals, options.critical_threshold)
    return _Point(linear, preconditioner, eig, count)


def _no_covariance(state: CentralState) -> _Covariance:
    zero, nothing = jnp.zeros_like(state.params), jnp.zeros((), state.params.dtype)
    return _Covariance(
        X=jnp.zeros_like(state.covariance),
        sdcp_residual=nothing,
        failed=jnp.zeros((), bool),
        grad_excess=zero,
        grad_variance=zero,
        num_third=jnp.zeros((), jnp.int32),
    )


def _solve_covariance(
    context: FlowContext, state: CentralState, point: _Point, length: float
) -> _Covariance:
    """Assemble and solve the complementarity problem of the critical directions."""
    k, eig, grad = context.num_eigs, point.eig, point.linear.grad
    U, HU = _effective_eigenvectors(point)
    drifts, num_third = _hessian_drifts(context, state.params, U, point.num_critical)

    # stable part of d/dt Uᵀ(2P - H)U, then the part linear in X
    preconditioner_rate = _preconditioner_rate(context, state.rule_state, grad)
    no_variance = jnp.zeros_like(grad)
    stable_rate = drifts @ (grad / point.preconditioner)
    stable_rate += _in_basis(U, 2.0 * preconditioner_rate(no_variance))
    response = 0.5 * (drifts / point.preconditioner) @ drifts.T
    if state.rule_state.nu is not None:
        response += _preconditioner_response(preconditioner_rate, U, HU, no_variance)

    gap = jnp.diag((2.0 - eig.eigvals).astype(jnp.float64))
    rotation = (eig.eigvecs @ state.basis.T).astype(jnp.float64)
    sdcp = solve_sdcp(
        gap + smat(length * stable_rate.astype(jnp.float64), k),
        length * response.astype(jnp.float64),
        point.num_critical,
        rotation @ state.covariance @ rotation.T,
    )
    X = sdcp.X.astype(U.dtype)
    worst = jnp.maximum(sdcp.primal_residual, jnp.maximum(sdcp.dual_residual, sdcp.complementarity))
    return _Covariance(
        X=sdcp.X,
        sdcp_residual=worst.astype(U.dtype),
        failed=sdcp.status != SDCP_CONVERGED,
        grad_excess=0.5 * svec(X) @ drifts,
        grad_variance=jnp.sum((X @ HU) * HU, axis=0),
        num_third=num_third,
    )


def _effective_eigenvectors(point: _Point) -> tuple[Float[Array, "k d"], Float[Array, "k d"]]:
    """Return U = P^{-1/2} V and HU = PUΛ, as rows; zero where the eigenvalue is not known."""
    root, eigvals = jnp.sqrt(point.preconditioner), point.eig.eigvals[:, None]
    U = point.eig.eigvecs / root
    return U, root * jnp.where(jnp.isfinite(eigvals), eigvals, 0.0) * point.eig.eigvecs


def _status(point: _Point, covariance: _Covariance) -> Int[Array, ""]:
    solved = jnp.where(covariance.failed, SDCP_FAILED, OK)
    status = jnp.maximum(eig_row_status(point.eig), solved)
    finite = jnp.isfinite(point.linear.value) & (point.num_critical >= 0)
    return jnp.where(finite, status, DIVERGED).astype(jnp.int32)


def _hessian_drifts(
    context: FlowContext, params: Array, U: Float[Array, "k d"], num_critical: Int[Array, ""]
) -> tuple[Float[Array, "m d"], Int[Array, ""]]:
    """Return rows √(2 - δ_ab) ∇_w (u_aᵀ H u_b) for critical pairs, 0 elsewhere, and their number.

    Pairs are ordered so that those of the first c directions are the first c(c+1)/2; the loop's
    length is traced, so nothing recompiles when c changes.
    """
    k = U.shape[0]
    rows, cols, scale = _pair_table(k)
    num_critical_pairs = (num_critical * (num_critical + 1)) // 2

    def fill(p: Array, drifts: Array) -> Array:
        contraction = third_derivative(context.loss, params, U[rows[p]], U[cols[p]])
        return drifts.at[p].set(scale[p].astype(U.dtype) * contraction)

    empty = jnp.zeros((num_pairs(k), U.shape[1]), U.dtype)
    drifts = jax.lax.fori_loop(0, num_critical_pairs, fill, empty)
    return drifts, num_critical_pairs.astype(jnp.int32)


def _preconditioner_rate(context: FlowContext, rule_state: RuleState, grad: Array) -> Rate:
    """Return the affine map v ↦ dP/dt, shape (d,), v the gradient's elementwise variance."""

    def rate(grad_variance: Float[Array, " d"]) -> Float[Array, " d"]:
        drift = context.rule.drift(rule_state, grad, grad_variance)
        tangent = jax.jvp(context.rule.preconditioner, (rule_state,), (drift,))[1]
        return jnp.broadcast_to(tangent, grad.shape)

    return rate


def _in_basis(U: Float[Array, "k d"], diagonal: Float[Array, " d"]) -> Float[Array, " m"]:
    """Return svec(Uᵀ diag(p) U)."""
    return svec((U * diagonal) @ U.T)


def _preconditioner_response(
    preconditioner_rate: Rate, U: Float[Array, "k d"], HU: Float[Array, "k d"], no_variance: Array
) -> Float[Array, "m m"]:
    """Return the matrix of X ↦ 2 Uᵀ diag(dP/dt|_X) U on svec coordinates.

    The gradient's variance under Σ = UXUᵀ is diag(HΣH), so its columns are products of HU.
    """
    rows, cols, scale = _pair_table(U.shape[0])
    scale = scale.astype(U.dtype)[:, None]
    linear = jax.linearize(preconditioner_rate, no_variance)[1]
    rates = jax.vmap(linear)(scale * HU[rows] * HU[cols])
    return 2.0 * (scale * U[rows] * U[cols]) @ rates.T


def _pair_table(k: int) -> tuple[Array, Array, Array]:
    rows, cols = pair_indices(k)
    return (
        jnp.asarray(rows),
        jnp.asarray(cols),
        jnp.asarray(np.where(rows == cols, 1.0, np.sqrt(2.0))),
    )


def _record(
    state: CentralState, reference: Reference, point: _Point, covariance: _Covariance
) -> Record:
    """Everything that the central flow predicts at its present point."""
    dtype = state.params.dtype
    X, eig, value, grad = covariance.X, point.eig, point.linear.value, point.linear.grad
    U = _effective_eigenvectors(point)[0]
    inactive = jnp.arange(X.shape[0]) >= point.num_critical
    # shifting the unused diagonal down keeps Σ's eigenvectors inside the critical subspace
    shift = 1.0 + jnp.linalg.norm(X)
    variances, directions = jnp.linalg.eigh(X - jnp.diag(jnp.where(inactive, shift, 0.0)))
    variances, directions = variances[::-1], directions[:, ::-1].astype(dtype)
    along = directions.T @ (U @ (point.preconditioner * (reference.params - state.params)))
    norm_sq = jnp.vdot(grad, grad)
    return undefined_record(state.params, X.shape[0])._replace(
        train_loss=value,
        train_loss_predicted=value + jnp.trace(X).astype(dtype),
        grad_norm_sq=norm_sq,
        grad_norm_sq_predicted=norm_sq + jnp.sum(covariance.grad_variance),
        effective_eigs=eig.eigvals,
        num_critical=point.num_critical,
        sigma_eigs=jnp.where(inactive, jnp.nan, jnp.maximum(variances, 0.0)).astype(dtype),
        displacement_sq=jnp.where(inactive, jnp.nan, along**2),
        sigma_trace=jnp.sum(X.astype(dtype) * (U @ U.T)),
    )


CENTRAL = Flow(init, step)
