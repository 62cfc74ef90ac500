"""A substep of the central flow by the adaptive scheme (`adaptive.py`), of a length it chooses.

X of a substep is what keeps the effective Hessian at or below 2 at the substep's end, as for other
schemes, and so its mean over the substep; X at a point, for the row, lies between the last one and
the present one, in proportion to the lengths.

The eigensolver starts from eigenvectors that have turned on as they did over the last substep; most
of its products are saved where that alone meets its tolerance.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cflows_ray.flows.adaptive import (
    PARTS,
    Past,
    Relaxation,
    Turning,
    ahead,
    arrive,
    choose,
    later,
    longest_stable,
    relaxation,
)
from cflows_ray.flows.central_covariance import (
    Ahead,
    Covariance,
    DriftingBasis,
    Point,
    drifting_basis,
    no_covariances,
    solve_ahead,
)
from cflows_ray.flows.exponential import bent, forcing
from cflows_ray.flows.integrators import Place
from cflows_ray.flows.process import FlowContext, Tracked
from cflows_ray.rules import Motion


class Advance(NamedTuple):
    """What became of a substep.

    Attributes:
        place: where it leads.
        past: what the scheme keeps of it.
        X: of the substep, float64.
        here: the covariance where it began, for one length.
        size: of the substep, in 64ths of an optimizer step.
        num_third: third derivatives that it took.
    """

    place: Place
    past: Past
    X: Float[Array, "k k"]
    here: Covariance
    size: Int[Array, ""]
    num_third: Int[Array, ""]


def advance(
    context: FlowContext,
    point: Point,
    past: Past,
    tracked: Tracked,
    guess: Float[Array, "k k"],
    position: Int[Array, ""],
    has_force: bool = True,
) -> Advance:
    """Make the substep that begins at a point.

    Args:
        context: loss, rule, and the tolerance.
        point: where it begins.
        past: what the scheme kept of the last one.
        tracked: eigenvectors where that began.
        guess: X of the last one, in the basis of the point's eigenvectors.
        position: in the optimizer step, in 64ths.
        has_force: as for `solve_covariances`.
    """
    rule, grad = context.rule, point.linear.grad
    here = Place(point.params, point.rule_state, point.t)
    acts = has_force or rule.responds
    basis, num_third = drifting_basis(context, point, jnp.where(acts, point.num_critical, 0))
    relaxes = _relaxation(context, point, basis, here)
    critical = jnp.arange(guess.shape[0]) < point.num_critical
    guess = jnp.where(critical[:, None] & critical, guess, 0.0)

    def rate_with(X: Float[Array, "k k"]) -> Motion:
        moments = basis.moments(grad, X, has_force)
        motion = rule.motion(here.t, here.params, here.state, moments, 0.0)
        return motion._replace(state=forcing(rule, here.state, motion.state))

    eigvals, options = point.eig.eigvals, context.options
    # no shorter substep mends what the eigensolver leaves
    tolerance = jnp.maximum(options.tolerance, options.required_residual).astype(grad.dtype)
    seen = arrive(past, rate_with(guess), relaxes, tolerance, eigvals[-1])
    ratio = seen.ratio
    if acts:  # what passes the edge is an error as well, and goes with h² too
        passes = jnp.where(past.length > 0, jnp.maximum(eigvals[0] - 2.0, 0.0), 0.0)
        ratio = jnp.maximum(ratio, passes / tolerance)
    size = choose(past, ratio, position, longest_stable(rule, point.t, eigvals[0], relaxes))
    h = size.astype(grad.dtype) / PARTS
    turn = Motion(later(seen, relaxes, h), bent(rule, here.state, seen.slope.state, h))
    substep = Ahead(h, lambda v: relaxes.phi(1, h, v), turn)
    solved = jax.lax.cond(
        (point.num_critical > 0) & acts,
        lambda: solve_ahead(context, point, basis, guess, substep, has_force),
        lambda: no_covariances(point, 1)[0],
    )
    X = solved.X[0]
    rate = rate_with(X)
    place = ahead(rule, here, rate, seen, relaxes, h)
    kept = Past(
        error=past.error + seen.error,
        rate=rate,
        slope=seen.slope,
        course=seen.course,
        way=place.params - here.params,
        length=h,
        size=size,
        turning=_turning(context, point, tracked, past.length),
    )
    share = jnp.where(past.length > 0, past.length / (past.length + h), 1.0)
    between = guess + share * (X - guess)
    variance = basis.variance(between.astype(grad.dtype))
    said = solved._replace(X=between[None], grad_variance=variance[None])
    return Advance(place, kept, X, said, size, num_third)


def _relaxation(
    context: FlowContext, point: Point, basis: DriftingBasis, here: Place
) -> Relaxation:
    duals = jnp.sqrt(point.preconditioner) * point.eig.eigvecs
    known = jnp.isfinite(point.eig.eigvals)
    return relaxation(context.rule, here, point.linear.grad, basis.U, basis.HU, duals, known)


def explores(context: FlowContext, tracked: Tracked, t: Float[Array, ""]) -> Bool[Array, ""]:
    """Say whether a step looks for eigenvectors that are missing: at the edge every other one.

    One that appears is to be tracked from 1.5 on, long before it is critical.
    """
    at_edge = tracked.eigvals[0] >= context.options.critical_threshold
    return ~at_edge | (t % 2 == 0)


def turned(tracked: Tracked, past: Past) -> Tracked:
    """Return where the eigenvectors are expected at the end of the last substep."""
    return tracked._replace(basis=tracked.basis + past.length * past.turning.rows)


def _turning(
    context: FlowContext, point: Point, tracked: Tracked, length: Float[Array, ""]
) -> Turning:
    """Return how fast the eigenvectors that must converge have left the span of the last ones."""
    eigvecs, before = point.eig.eigvecs, tracked.basis
    outside = eigvecs - (eigvecs @ before.T) @ before
    is_known = (length > 0) & ~tracked.fresh
    required = point.eig.eigvals >= context.options.near_threshold
    over = jnp.where(is_known, length, 1.0)
    return Turning(jnp.where(is_known & required[:, None], outside / over, 0.0))
