"""The central flow: the time-averaged path of the oscillating optimizer, with its covariance.

    dw/dt = -P⁻¹ [∇L + ½ ∇_w <H(w), Σ>],     ds/dt = E f(s, ∇L + Hδ),     Σ = U X Uᵀ

(without momentum; with it, see docs/momentum-theory.md) where X is the unique covariance with
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
    Point,
    no_covariances,
    solve_covariances,
)
from cflows_ray.flows.central_rows import Said, doubt, nothing_said, say
from cflows_ray.flows.integrators import INTEGRATORS, Integrator, Place, euler_move
from cflows_ray.flows.process import (
    Ask,
    Counts,
    FlowContext,
    Process,
    Reference,
    SquareInBasis,
    Start,
    Step,
    Tracked,
    count_critical,
)
from cflows_ray.flows.spectrum import effective_eigenpairs, too_few_tracked
from cflows_ray.flows.trust import Passed


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
    said: Said
    counts: Counts
    needs_more_eigs: Bool[Array, ""]
    kept: Any


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
        said=nothing_said(state.tracked.basis),
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
    acts = has_force or context.rule.responds

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
        error, held = moved.past.error, state.covariance.values
        doubts = jnp.where(acts, doubt(held, past.length > 0, point, moved.here, is_first), 0)
        said = say(context, reference, point, moved.here, error, is_first, progress.said, doubts)
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
            said=said,
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
    error, held, has_moved = passed.error, state.covariance.values, state.passed.length > 0
    doubts = jnp.where(acts, doubt(held, has_moved, point, covariances, is_first), 0)
    said = say(context, reference, point, covariances, error, is_first, progress.said, doubts)
    return _Progress(
        state=moved,
        t=place.t,
        said=said,
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


CENTRAL = Process(name="central", label="central flow", init=init, step=step)
