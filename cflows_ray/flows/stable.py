"""The stable flow: gradient flow in the optimizer's own metric.

    dw/dt, ds/dt = the rule's motion without oscillation; without momentum -P(s)⁻¹∇L, f(s, ∇L)

It ignores the oscillation, so past the edge of stability its effective sharpness goes on rising and
it leaves the optimizer behind. Integrated by Euler with max(4, substeps, ⌈2 × fastest rate⌉)
substeps an optimizer step, which keeps the integrator itself stable; without momentum the fastest
rate is the effective sharpness. Or, with `stable_scheme="chebyshev"`, to second order: without
momentum by max(4, substeps)/2 steps whose gradients grow with the root of that rate only
(`chebyshev.py`), with it by leapfrog (`leapfrog.py`), by as many gradients as Euler or one more.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from cflows_ray.curvature import linearize_gradient, value_and_grad
from cflows_ray.flows import chebyshev, leapfrog
from cflows_ray.flows.integrators import Place, euler_move
from cflows_ray.flows.process import (
    Ask,
    Counts,
    FlowContext,
    Process,
    Reference,
    Start,
    Step,
    Tracked,
    spectrum_columns,
)
from cflows_ray.flows.settings import FIXED_SUBSTEPS
from cflows_ray.flows.spectrum import (
    effective_eigenpairs,
    eig_row_status,
    worst_required_residual,
)
from cflows_ray.flows.trust import Followed, Passed
from cflows_ray.rules import Moments
from cflows_ray.schema import StepStatus

# Effective sharpness rises within a step; attention by whole steps: 1.0 ends 33% off, 1.25 2%.
MARGIN = 1.25


class StableState(NamedTuple):
    """w(t), the rule's state s(t), the eigensolver's warm start, and what estimates the error."""

    params: Float[Array, " d"]
    rule_state: PyTree
    tracked: Tracked
    passed: Passed


def init(context: FlowContext, start: Start) -> StableState:
    """Start at (w_0, U(s_0, g_0))."""
    del context
    return StableState(
        params=start.params,
        rule_state=start.absorbed,
        tracked=Tracked.begin(start.basis),
        passed=Passed.begin(start.params, start.absorbed),
    )


def step(context: FlowContext, state: StableState, reference: Reference, ask: Ask) -> Step:
    """Advance by one optimizer step, or stop where the effective sharpness passes its limit."""
    options, rule = context.options, context.rule
    here = Place(state.params, state.rule_state, reference.t)
    point = linearize_gradient(context.loss, state.params)
    # only the top eigenvalue decides the substeps; the others are tracked without being waited for
    eig = effective_eigenpairs(
        point,
        rule.edge_preconditioner(here.t, here.state),
        state.tracked,
        options,
        tolerance=options.record_eig_tolerance,
        near_threshold=jnp.inf,
    )
    sharpness = eig.eigvals[0]
    finite = jnp.isfinite(point.value) & jnp.isfinite(sharpness)
    status = jnp.where(sharpness > options.sharpness_limit, StepStatus.STOPPED, StepStatus.OK)
    status = jnp.where(finite, status, StepStatus.DIVERGED).astype(jnp.int32)

    is_followed = (status == StepStatus.OK) & ~ask.is_last
    moved, gradients = follow(context, here, point.grad, state.passed, sharpness, is_followed)

    norm_sq = jnp.vdot(point.grad, point.grad)
    return Step(
        state=StableState(
            moved.place.params,
            moved.place.state,
            Tracked(eig.eigvecs, eig.eigvals, jnp.zeros((), bool)),
            moved.passed,
        ),
        params=state.params,
        observed=rule.observed(state.rule_state),
        record={
            "train_loss": point.value,
            "train_loss_predicted": point.value,
            "grad_norm_sq": norm_sq,
            "grad_norm_sq_predicted": norm_sq,
            "eig_residual": worst_required_residual(eig, jnp.inf),
            "flow_error": moved.error_here,
            **spectrum_columns(eig.eigvals, options.critical_threshold),
        },
        status=jnp.maximum(status, eig_row_status(eig)),
        counts=Counts.of(gradients=gradients, hvps=eig.num_products),
    )


def follow(
    context: FlowContext,
    here: Place,
    grad: Float[Array, " d"],
    passed: Passed,
    sharpness: Float[Array, ""],
    is_followed: Bool[Array, ""],
) -> tuple[Followed, Int[Array, ""]]:
    """Return where one optimizer step leads by the scheme of the settings, and its gradients.

    Args:
        context: loss, rule, settings.
        here: where the flow is.
        grad: the gradient there.
        passed: what it keeps for the estimate of its error.
        sharpness: the effective sharpness there.
        is_followed: otherwise no more is computed than the error here, with one gradient.
    """
    options, rule = context.options, context.rule
    fastest = rule.fastest_rate(here.t, sharpness)
    least = max(FIXED_SUBSTEPS, options.substeps)
    if options.stable_scheme == "euler":
        substeps = jnp.where(is_followed, _substeps(least, fastest), 1)
        return _follow_euler(context, here, grad, passed, substeps), substeps
    if rule.relaxes(here.t):
        steps = _steps(least, fastest, is_followed)
        moved = chebyshev.follow(context.loss, rule, here, grad, passed, steps)
        return moved, steps.gradients
    # the gradient at the end of a step is taken as well: one substep less for as many gradients
    substeps = jnp.where(is_followed, _substeps(least - 1, fastest), 0)
    moved = leapfrog.follow(context.loss, rule, here, grad, passed, substeps)
    return moved, 1 + substeps


def _substeps(least: int, fastest: Float[Array, ""]) -> Int[Array, ""]:
    """Return as many equal substeps of an optimizer step as the fastest rate asks for."""
    return jnp.maximum(least, jnp.ceil(2.0 * fastest)).astype(jnp.int32)


def _steps(least: int, fastest: Float[Array, ""], is_followed: Bool[Array, ""]) -> chebyshev.Steps:
    """Return the Chebyshev scheme's steps and stages; 1 and 1 where none is to be made.

    Where Euler takes its fewest gradients, as many (or one more, of an odd number); elsewhere
    fewer. Two stages of half a step are stable to a rate of 3.9: enough for the rule's own
    averages, which four of Euler's follow to 4.
    """
    count = -(-least // chebyshev.LEAST_STAGES)
    stages = chebyshev.num_stages(MARGIN * fastest / count)
    return chebyshev.Steps(jnp.where(is_followed, count, 1), jnp.where(is_followed, stages, 1))


def _follow_euler(
    context: FlowContext,
    here: Place,
    grad: Float[Array, " d"],
    passed: Passed,
    substeps: Int[Array, ""],
) -> Followed:
    """Return where so many Euler substeps lead in one optimizer step; `grad` is that at `here`."""
    rule, length = context.rule, 1.0 / substeps.astype(here.params.dtype)

    def move(place: Place, passed: Passed, grad: Array) -> tuple[Place, Passed]:
        seen = Moments.still(grad)
        arrived = passed.arrive(rule, place, seen)
        ahead, velocity = euler_move(rule, place, seen, length)
        return ahead, arrived.leave(velocity, length)

    def substep(_: Array, carry: tuple[Place, Passed]) -> tuple[Place, Passed]:
        place, passed = carry
        return move(place, passed, value_and_grad(context.loss, place.params)[1])

    first = move(here, passed, grad)
    # a substep's error is known where the next begins
    place, end = jax.lax.fori_loop(1, substeps, substep, first)
    return Followed(place, end, first[1].error)


STABLE = Process(name="stable", label="stable flow", init=init, step=step)
