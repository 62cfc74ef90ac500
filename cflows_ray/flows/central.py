"""The central flow: the time-averaged path of the oscillating optimizer, with its covariance.

    dw/dt = -P⁻¹ [∇L + ½ ∇_w <H(w), Σ>],     ds/dt = E f(s, ∇L + Hδ),     Σ = U X Uᵀ

(without momentum; with it, see docs/theory.md) where X is the unique covariance with
0 ⪯ X ⟂ Uᵀ(2Q̂ - H)U ⪰ 0 along the flow (Cohen et al. 2025; docs/theory.md, "Central flow"). A
substep freezes the critical directions U and takes the X that keeps the effective Hessian at or
below 2 at its end (`central_covariance.py`). With no critical direction it is the stable flow. How
a step is made of substeps is the integrator's (`integrators.py`), or the adaptive scheme's
(`central_adaptive.py`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from cflows_ray.curvature import linearize_gradient
from cflows_ray.flows.adaptive import PARTS, Past
from cflows_ray.flows.central_adaptive import advance, explores, turned
from cflows_ray.flows.central_covariance import (
    Covariance,
    Point,
    effective_eigenvectors,
    no_covariances,
    solve_covariances,
)
from cflows_ray.flows.integrators import INTEGRATORS, Integrator, Place, euler_move
from cflows_ray.flows.loops import loop_columns
from cflows_ray.flows.process import (
    Ask,
    Counts,
    FlowContext,
    FlowOptions,
    Listed,
    Oscillation,
    Process,
    Recorded,
    Reference,
    SquareInBasis,
    Start,
    Step,
    Tracked,
    count_critical,
    spectrum_columns,
)
from cflows_ray.flows.spectrum import (
    effective_eigenpairs,
    too_few_tracked,
    tracking_row_status,
    worst_required_residual,
)
from cflows_ray.flows.trust import Passed, edge_doubt
from cflows_ray.schema import Doubt, StepStatus


class CentralState(NamedTuple):
    """w(t), the rule's state s(t), the warm starts of both solvers, and what estimates the error.

    `covariance` is the last X in the basis of the tracked eigenvectors, float64.
    """

    params: Float[Array, " d"]
    rule_state: PyTree
    tracked: Tracked
    covariance: SquareInBasis
    passed: Passed | Past


class _Progress(NamedTuple):
    """A step in the middle of its substeps."""

    state: CentralState
    t: Float[Array, ""]
    said: _Said
    counts: Counts
    needs_more_eigs: Bool[Array, ""]
    kept: Any


class _Said(NamedTuple):
    """What the row says: columns and Σ of the first substep, the worst status, all doubts."""

    record: Recorded
    oscillation: Oscillation
    status: Int[Array, ""]
    doubt: Int[Array, ""]


def init(context: FlowContext, start: Start) -> CentralState:
    """Start at (w_0, U(s_0, g_0)) with Σ = 0."""
    k = start.basis.shape[0]
    is_adaptive = context.options.scheme == "adaptive"
    return CentralState(
        params=start.params,
        rule_state=start.absorbed,
        tracked=Tracked.begin(start.basis),
        covariance=SquareInBasis(jnp.zeros((k, k), jnp.float64)),
        passed=Past.begin(start.params, start.absorbed, k)
        if is_adaptive
        else Passed.begin(start.params, start.absorbed),
    )


def step(
    context: FlowContext,
    state: CentralState,
    reference: Reference,
    ask: Ask,
    has_force: bool = True,
) -> Step:
    """Advance by one optimizer step, substep by substep; the record is of the first substep.

    Without `has_force` Σ acts on the rule's second moment alone (`unforced.py`).
    """
    is_adaptive = context.options.scheme == "adaptive"
    make = _adaptive_step if is_adaptive else _fixed_step
    moved = make(context, state, reference, ask, has_force)
    return Step(
        state=moved.state,
        params=state.params,
        observed=context.rule.observed(state.rule_state),
        record=moved.said.record,
        status=moved.said.status,
        counts=moved.counts,
        needs_more_eigs=moved.needs_more_eigs,
        oscillation=moved.said.oscillation,
        doubt=moved.said.doubt,
    )


def _begin(state: CentralState, reference: Reference, kept: Any) -> _Progress:
    return _Progress(
        state=state,
        t=reference.t,
        said=_nothing_said(state),
        counts=Counts.of(),
        needs_more_eigs=jnp.zeros((), bool),
        kept=kept,
    )


def _fixed_step(
    context: FlowContext, state: CentralState, reference: Reference, ask: Ask, has_force: bool
) -> _Progress:
    """Advance by one optimizer step in `substeps` equal ones."""
    integrator = INTEGRATORS[context.options.scheme]()
    substeps = jnp.where(ask.is_last, 1, context.options.substeps)

    def substep(j: Array, progress: _Progress) -> _Progress:
        return _substep(context, integrator, reference, j, progress, has_force)

    kept = integrator.begin(Place(state.params, state.rule_state, reference.t))
    return jax.lax.fori_loop(0, substeps, substep, _begin(state, reference, kept))


def _adaptive_step(
    context: FlowContext, state: CentralState, reference: Reference, ask: Ask, has_force: bool
) -> _Progress:
    """Advance by one optimizer step in as many substeps as it takes; `kept` is the position."""

    def goes_on(progress: _Progress) -> Array:
        return progress.kept < jnp.where(ask.is_last, 1, PARTS)

    def substep(progress: _Progress) -> _Progress:
        state, position = progress.state, progress.kept
        past, tracked, is_first = state.passed, state.tracked, position == 0
        assert isinstance(past, Past)
        expected = state._replace(tracked=turned(tracked, past))
        point = _look(
            context, expected, progress.t, is_first, explores(context, tracked, reference.t)
        )
        guess = _guess(state, point)
        moved = advance(context, point, past, tracked, guess, position, has_force)
        position = position + moved.size
        return _Progress(
            state=CentralState(
                params=moved.place.params,
                rule_state=moved.place.state,
                tracked=Tracked(point.eig.eigvecs, point.eig.eigvals, jnp.zeros((), bool)),
                covariance=SquareInBasis(moved.X),
                passed=moved.past,
            ),
            # not a sum of lengths, which might be rounded
            t=reference.t + position.astype(reference.t.dtype) / PARTS,
            said=_say(
                context, reference, point, moved.here, moved.past.error, is_first, progress.said
            ),
            counts=progress.counts.plus(Counts.of(1, point.eig.num_products, moved.num_third)),
            needs_more_eigs=progress.needs_more_eigs | too_few_tracked(point.eig, context.options),
            kept=position,
        )

    return jax.lax.while_loop(goes_on, substep, _begin(state, reference, jnp.zeros((), jnp.int32)))


def _substep(
    context: FlowContext,
    integrator: Integrator,
    reference: Reference,
    j: Int[Array, ""],
    progress: _Progress,
    has_force: bool,
) -> _Progress:
    """Advance by one substep, the j-th of its step."""
    options, state, is_first = context.options, progress.state, j == 0
    assert isinstance(state.passed, Passed)
    lengths = tuple(length / options.substeps for length in integrator.lengths)
    point = _look(context, state, progress.t, is_first)
    acts = has_force or context.rule.responds
    covariances, num_third = jax.lax.cond(
        (point.num_critical > 0) & acts,
        lambda: solve_covariances(
            context, point, _guess(state, point), lengths, integrator.needed(j), has_force
        ),
        lambda: no_covariances(point, len(lengths)),
    )
    here = Place(state.params, state.rule_state, progress.t)
    seen = tuple(covariances.of(i).moments(point.linear.grad) for i in range(len(lengths)))
    passed = state.passed.arrive(context.rule, here, seen[0], integrator.is_whole(j))
    moves = tuple(
        euler_move(context.rule, here, moments, length)
        for moments, length in zip(seen, lengths, strict=True)
    )
    place, kept = integrator.combine(context.rule, j, tuple(m.place for m in moves), progress.kept)
    velocity = integrator.velocity(j, tuple(m.velocity for m in moves))
    moved = CentralState(
        params=place.params,
        rule_state=place.state,
        tracked=Tracked(point.eig.eigvecs, point.eig.eigvals, jnp.zeros((), bool)),
        covariance=SquareInBasis(covariances.X[0]),
        passed=passed.leave(velocity, lengths[0]),
    )
    said = _say(context, reference, point, covariances, passed.error, is_first, progress.said)
    doubt = jnp.where(acts, _doubt(state, point, covariances, is_first), 0)
    return _Progress(
        state=moved,
        t=place.t,
        said=said._replace(doubt=progress.said.doubt | doubt),
        counts=progress.counts.plus(Counts.of(1, point.eig.num_products, num_third)),
        needs_more_eigs=progress.needs_more_eigs | too_few_tracked(point.eig, options),
        kept=kept,
    )


def _look(
    context: FlowContext,
    state: CentralState,
    t: Float[Array, ""],
    is_first: Bool[Array, ""],
    explores: Bool[Array, ""] | bool = True,
) -> Point:
    """Linearize the loss and refresh the eigenpairs.

    All tracked pairs at the first substep of a step; afterwards those that might become critical
    before the step ends, which are the ones above the tracking threshold. A step that `explores`
    looks for eigenvectors that are missing, at its first substep.
    """
    options, k = context.options, context.num_eigs
    linear = linearize_gradient(context.loss, state.params)
    preconditioner = context.rule.edge_preconditioner(t, state.rule_state)
    rising = jnp.sum(state.tracked.eigvals > options.tracking_threshold).astype(jnp.int32)
    num_active = jnp.where(is_first, k, rising)
    eig = effective_eigenpairs(
        linear,
        preconditioner,
        state.tracked,
        options,
        tolerance=options.required_residual,
        explore=is_first & explores,
        num_active=num_active,
    )
    refreshed = jnp.arange(k) < num_active
    eig = eig._replace(eigvals=jnp.where(refreshed, eig.eigvals, state.tracked.eigvals))
    count = count_critical(eig.eigvals, options.critical_threshold)
    return Point(t, state.params, state.rule_state, linear, preconditioner, eig, count)


def _guess(state: CentralState, point: Point) -> Float[Array, "k k"]:
    """Return the last covariance in the basis of the present eigenvectors."""
    rotation = (point.eig.eigvecs @ state.tracked.basis.T).astype(jnp.float64)
    return rotation @ state.covariance.values @ rotation.T


# What a row says ------------------------------------------------------------------------------


def _nothing_said(state: CentralState) -> _Said:
    """Return the row before the first substep, with nothing in it."""
    k, d = state.tracked.basis.shape
    dtype = state.params.dtype
    nan, nans = jnp.full((), jnp.nan, dtype), jnp.full((k,), jnp.nan, dtype)
    undefined = jnp.full((), -1, jnp.int32)
    record: dict[str, Array | Listed] = dict.fromkeys(NUMBERS, nan)
    record |= {name: Listed(nans, undefined) for name in LISTS}
    record |= {"num_critical": undefined}
    none = Oscillation(jnp.zeros((k, d), dtype), jnp.zeros((), jnp.int32))
    return _Said(record, none, jnp.full((), StepStatus.OK, jnp.int32), jnp.zeros((), jnp.int32))


NUMBERS = (
    "train_loss",
    "train_loss_predicted",
    "grad_norm_sq",
    "grad_norm_sq_predicted",
    "effective_sharpness",
    "sigma_trace",
    "eig_residual",
    "sdcp_residual",
    "growth_rate",
    "loop_period",
    "flow_error",
)
LISTS = ("effective_eigs", "sigma_eigs", "displacement_sq")


def _say(
    context: FlowContext,
    reference: Reference,
    point: Point,
    covariances: Covariance,
    error: Float[Array, ""],
    is_first: Bool[Array, ""],
    said: _Said,
) -> _Said:
    """Return the row after a substep: it speaks for all substeps, so the worst of each is kept."""
    options = context.options
    record, oscillation = jax.lax.cond(
        is_first,
        lambda: _predict(context, reference, point, covariances.of(0)),
        lambda: (said.record, said.oscillation),
    )
    eig_residual = worst_required_residual(point.eig, options.near_threshold, top=is_first)
    sdcp_residual = jnp.max(covariances.residual)
    record |= {
        "eig_residual": jnp.fmax(record["eig_residual"], eig_residual),
        "sdcp_residual": jnp.fmax(record["sdcp_residual"], sdcp_residual),
        "flow_error": jnp.fmax(record["flow_error"], jnp.where(is_first, error, jnp.nan)),
    }
    status = jnp.maximum(said.status, _status(point, covariances, options))
    return _Said(record, oscillation, status, said.doubt)


def _doubt(
    state: CentralState, point: Point, covariances: Covariance, is_first: Bool[Array, ""]
) -> Int[Array, ""]:
    """Return what there is to doubt: a third derivative, and at a step's start the edge."""
    eigvals, has_moved = point.eig.eigvals, state.passed.length > 0
    edge = edge_doubt(eigvals[0], point.num_critical, state.covariance.values, has_moved)
    # D enters A's rate; where the gradient is finite, nothing else in it may be infinite
    is_asked = (point.num_critical > 0) & jnp.all(jnp.isfinite(point.linear.grad))
    is_finite = jnp.all(jnp.isfinite(covariances.of(0).stable_rate))
    third = jnp.where(is_asked & ~is_finite, int(Doubt.NOT_FINITE), 0)
    return jnp.where(is_first, edge, 0) | third.astype(jnp.int32)


def _status(point: Point, covariances: Covariance, options: FlowOptions) -> Int[Array, ""]:
    failed = jnp.any(covariances.failed)
    solved = jnp.where(failed, StepStatus.SDCP_UNCONVERGED, StepStatus.OK)
    status = jnp.maximum(tracking_row_status(point.eig, options), solved)
    finite = jnp.isfinite(point.linear.value) & (point.num_critical >= 0)
    return jnp.where(finite, status, StepStatus.DIVERGED).astype(jnp.int32)


def _predict(
    context: FlowContext, reference: Reference, point: Point, covariance: Covariance
) -> tuple[dict[str, Any], Oscillation]:
    """Return everything that the central flow predicts at its present point, and Σ."""
    dtype, grad = point.params.dtype, point.linear.grad
    X, U = covariance.X, effective_eigenvectors(point)[0]
    inactive = jnp.arange(X.shape[0]) >= point.num_critical
    # shifting the unused diagonal down keeps Σ's eigenvectors inside the critical subspace
    shift = 1.0 + jnp.linalg.norm(X)
    variances, directions = jnp.linalg.eigh(X - jnp.diag(jnp.where(inactive, shift, 0.0)))
    variances, directions = variances[::-1], directions[:, ::-1].astype(dtype)
    along = directions.T @ (U @ (point.preconditioner * (reference.params - point.params)))
    variances = jnp.where(inactive, jnp.nan, jnp.maximum(variances, 0.0)).astype(dtype)
    norm_sq = jnp.vdot(grad, grad)
    trace = jnp.sum(X.astype(dtype) * (U @ U.T))
    num_lists = jnp.where(jnp.isnan(trace), -1, point.num_critical)
    record = {
        "train_loss": point.linear.value,
        "train_loss_predicted": point.linear.value + jnp.trace(X).astype(dtype),
        "grad_norm_sq": norm_sq,
        "grad_norm_sq_predicted": norm_sq + jnp.sum(covariance.grad_variance),
        "sigma_eigs": Listed(variances, num_lists),
        "displacement_sq": Listed(jnp.where(inactive, jnp.nan, along**2), num_lists),
        "sigma_trace": trace,
        "eig_residual": jnp.full((), jnp.nan, dtype),
        "sdcp_residual": jnp.full((), jnp.nan, dtype),
        "flow_error": jnp.full((), jnp.nan, dtype),
        **spectrum_columns(point.eig.eigvals, context.options.critical_threshold),
        **loop_columns(
            covariance.stable_rate, directions, ~inactive, context.rule.growth_gain(point.t)
        ),
    }
    spread = jnp.sqrt(jnp.where(inactive, 0.0, jnp.nan_to_num(variances)))
    rows = spread[:, None] * (directions.T @ U)
    return record, Oscillation(rows, jnp.maximum(point.num_critical, 0))


CENTRAL = Process(name="central", label="central flow", init=init, step=step)
