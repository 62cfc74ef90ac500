"""The corrected gradient flow: the optimizer's step as a smooth path, to second order.

    x' = F - ½ DF·F,     x = (w, s), F(x) = A(x) - x

The alternating flow of second order without a swing. For gradient descent it is
w' = -η∇L - ½η²H∇L (Barrett, Dherin, arXiv 2009.11162, read); with momentum, kept as a state, the
slow mode comes out with the factor of Ghosh et al. (arXiv 2302.00849, known by a summary); where
there is a second moment the derivative of P is included (docs/rivals-theory.md, derived there). It
knows of no oscillation: past the edge it leaves the optimizer behind, and it stops at
`corrected_sharpness_limit`.

The effective sharpness that chooses the substeps is one product of power iteration a step: below
the true one, by little after the first steps. No eigensolver runs.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from cflows_ray.curvature import linearize_gradient
from cflows_ray.flows.heun import heun_step
from cflows_ray.flows.mean_and_swing import Whole, add, increment
from cflows_ray.flows.process import Ask, Counts, FlowContext, Process, Reference, Start, Step
from cflows_ray.schema import StepStatus

# Products of power iteration at the start.
POWER_STEPS = 10


class CorrectedState(NamedTuple):
    """x = (w, s), the state not absorbed; and power iteration's unit vector in Q̂'s metric."""

    place: Whole
    direction: Float[Array, " d"]


class _Seen(NamedTuple):
    loss: Float[Array, ""]
    grad_norm_sq: Float[Array, ""]
    absorbed: PyTree


def init(context: FlowContext, start: Start) -> CorrectedState:
    """Start at (w_0, s_0)."""
    at = linearize_gradient(context.loss, start.params)
    root = jnp.sqrt(context.rule.edge_preconditioner(start.t, start.absorbed))

    def refine(_: Array, u: Array) -> Array:
        return _unit(at.hessian_vectors((u / root)[None])[0] / root)

    direction = jax.lax.fori_loop(0, POWER_STEPS, refine, _unit(start.basis[0]))
    return CorrectedState(Whole(start.params, start.rule_state), direction)


def step(context: FlowContext, state: CorrectedState, reference: Reference, ask: Ask) -> Step:
    """Advance by one optimizer step, or stop where the effective sharpness passes the limit."""
    rule, u = context.rule, state.direction

    def F(t: Array, x: Whole, grad: Array) -> tuple[Whole, PyTree]:
        return increment(rule, t, x, grad)

    def evaluate(t: Float[Array, ""], x: Whole) -> tuple[Whole, _Seen]:
        at = linearize_gradient(context.loss, x.params)
        rate, absorbed = F(t, x, at.grad)
        turning = at.hessian_vectors(rate.params[None])[0]
        bend = jax.jvp(F, (t, x, at.grad), (jnp.ones_like(t), rate, turning))[1][0]
        return add(rate, bend, -0.5), _Seen(at.value, jnp.vdot(at.grad, at.grad), absorbed)

    here = linearize_gradient(context.loss, state.place.params)
    absorbed = rule.absorb(reference.t, state.place.state, here.grad)
    root = jnp.sqrt(rule.edge_preconditioner(reference.t, absorbed))
    power = here.hessian_vectors((u / root)[None])[0] / root
    sharpness = jnp.vdot(u, power)
    moved = heun_step(
        evaluate,
        state.place,
        reference.t,
        lambda _: jnp.abs(sharpness) + 0.5 * sharpness**2,
        context.options.corrected_substeps,
        ask.is_last,
    )
    seen = moved.first
    limited = sharpness > context.options.corrected_sharpness_limit
    status = jnp.where(limited, StepStatus.STOPPED, StepStatus.OK)
    finite = jnp.isfinite(seen.loss) & jnp.isfinite(sharpness)
    status = jnp.where(finite, status, StepStatus.DIVERGED).astype(jnp.int32)
    return Step(
        state=CorrectedState(moved.place, _unit(power)),
        params=state.place.params,
        observed=rule.observed(seen.absorbed),
        record={
            "train_loss": seen.loss,
            "train_loss_predicted": seen.loss,
            "grad_norm_sq": seen.grad_norm_sq,
            "grad_norm_sq_predicted": seen.grad_norm_sq,
            "effective_sharpness": sharpness,
        },
        status=status,
        counts=Counts.of(gradients=moved.evaluations + 1, hvps=moved.evaluations + 1),
    )


def _unit(u: Float[Array, " d"]) -> Float[Array, " d"]:
    return u / jnp.maximum(jnp.linalg.norm(u), jnp.finfo(u.dtype).tiny)


CORRECTED = Process(name="corrected", label="corrected gradient flow", init=init, step=step)
