"""The rod flow: half-way points, with a covariance of which one direction acts.

Regis, Chewi, arXiv 2602.01480 (equations known to us at second hand): with z̄ = ½(z_t + z_{t+1}),
which belongs to time t + ½, and F(z) = z⁺ - z,

    dz̄/dt = ½(F₊ + F₋) - ⅛(DF₊ + DF₋)(F₊ + F₋)        F± = F(z̄ ± δ)
    dΣ/dt = ¼(F₊F₊ᵀ + F₋F₋ᵀ) - 2Σ                      δ = √λ₁ q₁, the top eigenpair of Σ

z = w, or (w, m) with momentum. The second moment ν and the time are means, not part of Σ, and the
correction sees P(ν, t) move (both ours, docs/rivals-theory.md, "Rod flow"); with P constant this is
the published flow. Σ = ZᵀZ with `rod_rank` rows. Started below the edge δ is the drift, and the
flow does not see the edge when it comes: so is the published flow, and so it stays here.

Explicit Euler: the weights of Σ must be positive, which needs substeps of at most ½.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cflows_ray.curvature import value_and_grad
from cflows_ray.flows.alternating import ITERATE_DISTANCE
from cflows_ray.flows.heun import SUBSTEPS_PER_RATE, loss_where_wanted
from cflows_ray.flows.mean_and_swing import add, displacement, linearize_both
from cflows_ray.flows.process import (
    Ask,
    Counts,
    FlowContext,
    Listed,
    Oscillation,
    Process,
    Reference,
    Start,
    Step,
)
from cflows_ray.flows.seeds import LEAST_LENGTH
from cflows_ray.flows.settings import MOST_SUBSTEPS
from cflows_ray.rules import Averages, Moments, PreconditionedRule, UpdateRule
from cflows_ray.schema import StepStatus


class Point(NamedTuple):
    """z = (w, m), m None without momentum; or rows of differences of such."""

    params: Float[Array, "*r d"]
    momentum: Any


class Rod(NamedTuple):
    """z̄, the rows Z of Σ = ZᵀZ, ν as it has absorbed the gradient at the time of z̄."""

    centre: Point
    rows: Point
    nu: Any


class RodState(NamedTuple):
    """The rod at t + ½, the half-way point before, and the sign s for which z̄ - sδ is z_t."""

    rod: Rod
    before: Point
    sign: Float[Array, ""]


class _Seen(NamedTuple):
    loss: Float[Array, ""]
    grad_norm_sq: Float[Array, ""]
    curvature: Float[Array, ""]


def init(context: FlowContext, start: Start) -> RodState:
    """Start between x_0 and x_1: z̄ = ½(z_0 + z_1), δ = ½(z_1 - z_0), ν absorbed and averaged."""
    rule = context.rule
    w, absorbed = start.params, start.absorbed
    grad = value_and_grad(context.loss, w)[1]
    following = rule.step(start.t, w, absorbed, grad)
    later = rule.absorb(start.t + 1.0, absorbed, value_and_grad(context.loss, following)[1])
    here = Point(w, start.rule_state.momentum)
    ahead = Point(following, absorbed.momentum)
    behind = Point(start.previous, start.previous_state.momentum)
    half = lambda a, b: jax.tree.map(lambda x, y: 0.5 * (x + y), a, b)  # noqa: E731
    delta = jax.tree.map(lambda x, y: 0.5 * (x - y), ahead, here)
    rank = context.options.rod_rank
    rows = jax.tree.map(lambda x: jnp.zeros((rank, x.size), x.dtype).at[0].set(x), delta)
    rod = Rod(half(here, ahead), rows, half(absorbed.nu, later.nu))
    return RodState(rod, half(behind, here), jnp.ones_like(start.t))


def step(context: FlowContext, state: RodState, reference: Reference, ask: Ask) -> Step:
    """Advance by one optimizer step; the row's point is ½(z̄(t - ½) + z̄(t + ½))."""
    t, rod, dtype = reference.t + 0.5, state.rod, reference.params.dtype
    delta = _first(rod.rows)
    metric = _metric(context, t, rod)
    squared = jnp.sum(metric * delta.params**2)

    def substeps_by(seen: _Seen) -> Int[Array, ""]:
        s = jnp.abs(seen.curvature) / jnp.maximum(squared, LEAST_LENGTH**2)
        wanted = jnp.nan_to_num(jnp.ceil(SUBSTEPS_PER_RATE * (s + 0.5 * s**2)), nan=0.0)
        return jnp.clip(wanted, context.options.rod_substeps, MOST_SUBSTEPS).astype(jnp.int32)

    def goes_on(carry: tuple) -> Array:
        i, substeps, _, _ = carry
        return i < jnp.where(ask.is_last, 1, substeps)

    def body(carry: tuple) -> tuple:
        i, substeps, rod, first = carry
        now = t + i.astype(dtype) / substeps.astype(dtype)
        ahead, behind, rate, nu_rate, seen = _rates(context, now, rod)
        substeps = jnp.where(i == 0, substeps_by(seen), substeps)
        h = 1.0 / substeps.astype(dtype)
        first = jax.tree.map(lambda a, b: jnp.where(i == 0, a, b), seen, first)
        kept = jnp.sqrt(1.0 - 2.0 * h), jnp.sqrt(0.25 * h)
        wide = jax.tree.map(
            lambda z, a, b: jnp.concatenate([kept[0] * z, kept[1] * a[None], kept[1] * b[None]]),
            rod.rows, ahead, behind,
        )  # fmt: skip
        moved = Rod(
            add(rod.centre, rate, h),
            _low_rank(wide, _metric(context, now, rod), context.options.rod_rank),
            add(rod.nu, nu_rate, h),
        )
        return i + 1, substeps, moved, first

    nothing = _Seen(*(jnp.zeros((), dtype),) * 3)
    begin = (jnp.zeros((), jnp.int32), jnp.ones((), jnp.int32), rod, nothing)
    evaluations, _, moved, seen = jax.lax.while_loop(goes_on, body, begin)
    # δ turns over from step to step, a row of Z goes on without a jump
    turned = jnp.sign(_dot(_first(moved.rows), delta))
    centre = 0.5 * (state.before.params + rod.centre.params)
    iterate = rod.centre.params - state.sign * delta.params
    along = jnp.sum(metric * delta.params * (reference.params - centre))
    finite = jnp.isfinite(seen.loss) & jnp.all(jnp.isfinite(rod.centre.params))
    return Step(
        state=RodState(moved, rod.centre, -state.sign * jnp.where(turned == 0, 1.0, turned)),
        params=centre,
        observed=_observed(context.rule, rod),
        record={
            **loss_where_wanted(context, centre, ask),
            "train_loss_predicted": seen.loss,
            "grad_norm_sq_predicted": seen.grad_norm_sq,
            "effective_sharpness": seen.curvature / jnp.maximum(squared, LEAST_LENGTH**2),
            "sigma_eigs": Listed(squared[None], jnp.ones((), jnp.int32)),
            "displacement_sq": Listed(
                (along**2 / jnp.maximum(squared, LEAST_LENGTH**2))[None], jnp.ones((), jnp.int32)
            ),
            "sigma_trace": jnp.sum(rod.rows.params**2),
            "iterate_distance": jnp.linalg.norm(iterate - reference.params),
        },
        status=jnp.where(finite, StepStatus.OK, StepStatus.DIVERGED).astype(jnp.int32),
        counts=Counts.of(gradients=2 * evaluations + ask.wanted, hvps=2 * evaluations),
        oscillation=Oscillation(rod.rows.params, jnp.full((), context.options.rod_rank, jnp.int32)),
        half=state.before.params,
    )


def _rates(
    context: FlowContext, t: Float[Array, ""], rod: Rod
) -> tuple[Point, Point, Point, Any, _Seen]:
    """Return F₊, F₋, dz̄/dt, dν/dt, and what was seen."""
    rule, delta = context.rule, _first(rod.rows)
    points = jnp.stack([rod.centre.params + delta.params, rod.centre.params - delta.params])
    at = linearize_both(context.loss, points)
    middle, gap = 0.5 * (at.grads[0] + at.grads[1]), 0.5 * (at.grads[0] - at.grads[1])
    # E q over both sides is q of the mean with the gap squared as variance
    still = Averages(rod.centre.momentum, rod.nu)
    moments = Moments(middle, jnp.zeros_like(middle), gap**2)
    nu_rate = rule.motion(t, rod.centre.params, still, moments, 0.0).state.nu

    def F(t: Array, z: Point, nu: Any, grad: Array) -> Point:
        return _increment(rule, t, z, nu, grad)

    sides = add(rod.centre, delta), add(rod.centre, delta, -1.0)
    ahead, behind = (F(t, z, rod.nu, g) for z, g in zip(sides, at.grads, strict=True))
    mean = jax.tree.map(lambda a, b: 0.5 * (a + b), ahead, behind)
    turning = at.products(jnp.stack([mean.params, mean.params]))
    slopes = [
        jax.jvp(F, (t, z, rod.nu, g), (jnp.ones_like(t), mean, nu_rate, turn))[1]
        for z, g, turn in zip(sides, at.grads, turning, strict=True)
    ]
    rate = jax.tree.map(lambda m, a, b: m - 0.25 * (a + b), mean, *slopes)
    seen = _Seen(jnp.mean(at.values), 0.5 * jnp.sum(at.grads**2), jnp.vdot(delta.params, gap))
    return ahead, behind, rate, nu_rate, seen


def _increment(rule: Any, t: Array, z: Point, nu: Any, grad: Array) -> Point:
    """Return F(z) = z⁺ - z, with P of a ν that is given."""
    absorbed = Averages(rule.remember(t, z.momentum, nu, grad), nu)
    push, pull = displacement(rule, t, absorbed, grad)
    return Point(push + pull(z.params), add(absorbed.momentum, z.momentum, -1.0))


def _metric(context: FlowContext, t: Array, rod: Rod) -> Float[Array, "..."]:
    """Return Q̂ on w; on m it is 0, for m follows w and its unit is another."""
    return context.rule.edge_preconditioner(t, Averages(rod.centre.momentum, rod.nu))


def _low_rank(rows: Point, metric: Float[Array, "..."], rank: int) -> Point:
    """Return so many rows nearest to all of them in the metric, the longest first."""
    w = rows.params
    gram = ((w * metric) @ w.T).astype(jnp.float64)
    finite = jnp.all(jnp.isfinite(gram))
    vectors = jnp.linalg.eigh(jnp.where(finite, gram, jnp.eye(gram.shape[0])))[1]
    mix = vectors[:, ::-1][:, :rank].T.astype(w.dtype)
    return jax.tree.map(lambda x: mix @ x, rows)


def _first(rows: Point) -> Point:
    return jax.tree.map(lambda x: x[0], rows)


def _dot(a: Point, b: Point) -> Array:
    return jnp.vdot(a.params, b.params)


def _observed(rule: Any, rod: Rod) -> dict[str, Array]:
    """Return ν; m belongs to half a step later, in another convention, and is not said."""
    observed = dict(rule.observed(Averages(rod.centre.momentum, rod.nu)))
    observed.pop("momentum", None)
    return observed


def needs(rule: UpdateRule) -> str | None:
    """Say why the flow is not defined for a rule; None where it is."""
    if isinstance(rule, PreconditionedRule):
        return None
    return "a rule with a diagonal preconditioner (PreconditionedRule)"


ROD = Process(
    name="rod", label="rod flow", init=init, step=step, columns=(ITERATE_DISTANCE,), needs=needs
)
