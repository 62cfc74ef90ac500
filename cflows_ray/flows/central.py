"""The central flow: the time-averaged path of the oscillating optimizer, with its covariance.

    dw/dt = -P^{-1} [∇L + ½ ∇_w <H(w), Σ>],     ds/dt = E f(s, ∇L + Hδ),     Σ = U X Uᵀ

where X is the unique covariance with 0 ⪯ X ⟂ Uᵀ(2P - H)U ⪰ 0 along the flow (Cohen et al. 2025;
docs/theory.md, "Central flow"). An Euler substep freezes the critical directions U and takes the X
that keeps the effective Hessian at or below 2 at its end (`covariance.py`). With no critical
direction it is the stable flow.

Two schemes, with as many evaluations of the derivatives for as many substeps a step:

- `euler`: first order.
- `extrapolated`: second order. From where every other substep starts, a substep of twice the
  length is made as well, with the same derivatives; after both short ones the flow goes on from
  2 (two short) - (one long), Richardson's extrapolation.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cflows_ray.curvature import linearize_gradient
from cflows_ray.flows.base import (
    DIVERGED,
    OK,
    SDCP_FAILED,
    Counts,
    Flow,
    FlowContext,
    FlowOptions,
    Record,
    Reference,
    Start,
    StepResult,
    count_critical,
    hold_if,
    undefined_record,
)
from cflows_ray.flows.covariance import (
    Covariance,
    Point,
    effective_eigenvectors,
    no_covariances,
    solve_covariances,
)
from cflows_ray.flows.spectrum import (
    effective_eigenpairs,
    too_few_tracked,
    tracking_row_status,
    worst_required_residual,
)
from cflows_ray.rules import RuleState


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


class _Place(NamedTuple):
    """What the flow moves: w and s."""

    params: Float[Array, " d"]
    rule_state: RuleState


class _Progress(NamedTuple):
    """A step in the middle of its substeps; `long` is where a substep of twice the length led."""

    state: CentralState
    record: Record
    needs_more_eigs: Bool[Array, ""]
    long: _Place | None


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

    def substep(j: Array, progress: _Progress) -> _Progress:
        return _substep(context, reference, j, progress)

    blank = undefined_record(state.params, context.num_eigs)
    here = _Place(state.params, state.rule_state)
    long = here if context.options.scheme == "extrapolated" else None
    begin = _Progress(state, blank, jnp.zeros((), bool), long)
    moved, record, needs_more, _ = jax.lax.fori_loop(0, substeps, substep, begin)
    # t is a count: set, not summed up from rounded substeps
    whole_t = moved.rule_state._replace(t=state.rule_state.t + 1.0)
    moved = moved._replace(rule_state=whole_t)
    moved = hold_if(is_last | (moved.status != OK), state, moved)
    return StepResult(moved, state.params, state.rule_state.nu, record, needs_more)


def _substep(
    context: FlowContext, reference: Reference, j: Int[Array, ""], progress: _Progress
) -> _Progress:
    """Advance by one substep, the j-th of its step."""
    options, state, is_first = context.options, progress.state, j == 0
    length = 1.0 / options.substeps
    lengths = (length,) if progress.long is None else (length, 2.0 * length)
    point = _look(context, state, is_first)
    covariances, num_third = jax.lax.cond(
        point.num_critical > 0,
        lambda: solve_covariances(
            context, point, _guess(state, point), lengths, jnp.where(j % 2 == 0, 2, 1)
        ),
        lambda: no_covariances(point, len(lengths)),
    )
    place, long = _move(context, j, point, covariances, length, progress.long)
    record = jax.lax.cond(
        is_first,
        lambda: _record(reference, point, covariances.of(0)),
        lambda: progress.record,
    )
    # one row speaks for all its substeps: keep the worst of what may go wrong
    status = _status(point, covariances, options)
    residual = worst_required_residual(point.eig, options.near_threshold, top=is_first)
    record = record._replace(
        status=jnp.maximum(record.status, status),
        eig_residual=jnp.fmax(record.eig_residual, residual),
        sdcp_residual=jnp.fmax(record.sdcp_residual, jnp.max(covariances.residual)),
    )
    moved = CentralState(
        params=place.params,
        rule_state=place.rule_state,
        basis=point.eig.eigvecs,
        eigvals=point.eig.eigvals,
        covariance=covariances.X[0],
        fresh=jnp.zeros((), bool),
        status=jnp.where(status == DIVERGED, DIVERGED, state.status).astype(jnp.int32),
        counts=state.counts.plus(1, point.eig.num_products, num_third),
    )
    needs_more = progress.needs_more_eigs | too_few_tracked(point.eig, options)
    return _Progress(moved, record, needs_more, long)


def _look(context: FlowContext, state: CentralState, is_first: Bool[Array, ""]) -> Point:
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
    return Point(state.params, state.rule_state, linear, preconditioner, eig, count)


def _guess(state: CentralState, point: Point) -> Float[Array, "k k"]:
    """Return the last covariance in the basis of the present eigenvectors."""
    rotation = (point.eig.eigvecs @ state.basis.T).astype(jnp.float64)
    return rotation @ state.covariance @ rotation.T


def _move(
    context: FlowContext,
    j: Int[Array, ""],
    point: Point,
    covariances: Covariance,
    length: float,
    long: _Place | None,
) -> tuple[_Place, _Place | None]:
    """Return where the j-th substep of a step leads, and the long one that it is part of."""
    short = _euler(context, point, covariances.of(0), length)
    if long is None:
        return short, None
    begins = j % 2 == 0
    long = jax.tree.map(
        lambda new, old: jnp.where(begins, new, old),
        _euler(context, point, covariances.of(1), 2.0 * length),
        long,
    )
    end = _extrapolate(short, long)
    return jax.tree.map(lambda s, e: jnp.where(begins, s, e), short, end), long


def _euler(context: FlowContext, point: Point, covariance: Covariance, length: float) -> _Place:
    """Return where an Euler substep leads, with the covariance for its length."""
    grad = point.linear.grad
    rate = context.rule.drift(point.rule_state, grad, covariance.grad_variance)
    return _Place(
        point.params - length * (grad + covariance.grad_excess) / point.preconditioner,
        jax.tree.map(lambda s, ds: s + length * ds, point.rule_state, rate),
    )


def _extrapolate(short: _Place, long: _Place) -> _Place:
    """Return 2 short - long; where a second moment would not stay positive, the short one's."""

    def positive(s: Array, ds: Array) -> Array:
        return jnp.where(2.0 * s > ds, 2.0 * s - ds, s)

    return _Place(
        2.0 * short.params - long.params,
        jax.tree.map(positive, short.rule_state, long.rule_state),
    )


def _status(point: Point, covariances: Covariance, options: FlowOptions) -> Int[Array, ""]:
    solved = jnp.where(jnp.any(covariances.failed), SDCP_FAILED, OK)
    status = jnp.maximum(tracking_row_status(point.eig, options), solved)
    finite = jnp.isfinite(point.linear.value) & (point.num_critical >= 0)
    return jnp.where(finite, status, DIVERGED).astype(jnp.int32)


def _record(reference: Reference, point: Point, covariance: Covariance) -> Record:
    """Everything that the central flow predicts at its present point."""
    dtype, eig, grad = point.params.dtype, point.eig, point.linear.grad
    X, U = covariance.X, effective_eigenvectors(point)[0]
    inactive = jnp.arange(X.shape[0]) >= point.num_critical
    # shifting the unused diagonal down keeps Σ's eigenvectors inside the critical subspace
    shift = 1.0 + jnp.linalg.norm(X)
    variances, directions = jnp.linalg.eigh(X - jnp.diag(jnp.where(inactive, shift, 0.0)))
    variances, directions = variances[::-1], directions[:, ::-1].astype(dtype)
    along = directions.T @ (U @ (point.preconditioner * (reference.params - point.params)))
    norm_sq = jnp.vdot(grad, grad)
    return undefined_record(point.params, X.shape[0])._replace(
        train_loss=point.linear.value,
        train_loss_predicted=point.linear.value + jnp.trace(X).astype(dtype),
        grad_norm_sq=norm_sq,
        grad_norm_sq_predicted=norm_sq + jnp.sum(covariance.grad_variance),
        effective_eigs=eig.eigvals,
        num_critical=point.num_critical,
        sigma_eigs=jnp.where(inactive, jnp.nan, jnp.maximum(variances, 0.0)).astype(dtype),
        displacement_sq=jnp.where(inactive, jnp.nan, along**2),
        sigma_trace=jnp.sum(X.astype(dtype) * (U @ U.T)),
    )


CENTRAL = Flow(init, step)
