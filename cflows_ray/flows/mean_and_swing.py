"""The optimizer as one map, and its exact split into a mean and a swing that alternates.

With x = (w, s) the optimizer's whole state, s before it absorbs the gradient at w, and
F(x) = A(x) - x one optimizer step, any split x_0 = z̄ + ζ gives x_n = z̄_n + (-1)ⁿ ζ_n exactly, with

    z̄⁺ = z̄ + G_z̄,   G_z̄ = ½(F₊ + F₋)             F± = F(z̄ ± ζ)
    ζ⁺ = ζ + G_ζ,   G_ζ = -2ζ - ½(F₊ - F₋)

for every rule (docs/rivals-theory.md, "The alternating family"; derived there). All that is needed
of a rule is `absorb` and `step`, the latter affine in w; and its edge preconditioner Q̂ as a metric,
in which the edge is at 2.

A swing near rounding level would be lost in z̄ ± ζ. So differences *reach* as far as ℓ:
F± = F(z̄ ± θζ), and their difference is divided by θ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from cflows_ray.curvature import Loss, float_mode
from cflows_ray.flows.process import FlowContext, FlowOptions, Start
from cflows_ray.flows.seeds import LEAST_LENGTH, length, rounding_length, seed_factor, seed_length
from cflows_ray.rules import UpdateRule


class Whole(NamedTuple):
    """An optimizer's whole state x = (w, s), or a difference of two such."""

    params: Float[Array, " d"]
    state: PyTree


class Split(NamedTuple):
    """Mean z̄ and swing ζ of an optimizer that alternates, or their rates."""

    mean: Whole
    swing: Whole


class Seen(NamedTuple):
    """What an evaluation at both sides of a split saw.

    Attributes:
        loss: ½(L₊ + L₋).
        grad_norm_sq: ½(|g₊|² + |g₋|²).
        curvature: vᵀγ, γ = ½(g₊ - g₋) over the reach: over |v|², the effective sharpness along v.
        absorbed: the rule's state with the gradients absorbed, in the mean.
    """

    loss: Float[Array, ""]
    grad_norm_sq: Float[Array, ""]
    curvature: Float[Array, ""]
    absorbed: PyTree


def add(x: PyTree, y: PyTree, factor: Any = 1.0) -> PyTree:
    """Return x + factor y, leaf by leaf."""
    return jax.tree.map(lambda a, b: a + factor * b, x, y)


# The map ----------------------------------------------------------------------------------------


def increment(
    rule: UpdateRule, t: Float[Array, ""], x: Whole, grad: Float[Array, " d"]
) -> tuple[Whole, PyTree]:
    """Return F(x) = A(x) - x, and the state that has absorbed the gradient at w.

    Args:
        rule: any.
        t: gradients absorbed once this one is.
        x: where the step begins; the state has not absorbed `grad`.
        grad: ∇L(w).
    """
    absorbed = rule.absorb(t, x.state, grad)
    push, pull = displacement(rule, t, absorbed, grad)
    return Whole(push + pull(x.params), add(absorbed, x.state, -1.0)), absorbed


def displacement(
    rule: UpdateRule, t: Float[Array, ""], absorbed: PyTree, grad: Float[Array, " d"]
) -> tuple[Float[Array, " d"], Callable[[Array], Array]]:
    """Return w' - w as a vector and a linear map of w (weight decay; 0 without).

    Taken apart, neither carries the rounding of w, which would swamp a small swing.
    """

    def moved(params: Float[Array, " d"]) -> Float[Array, " d"]:
        return rule.step(t, params, absorbed, grad) - params

    origin = jnp.zeros_like(grad)
    return moved(origin), lambda direction: jax.jvp(moved, (origin,), (direction,))[1]


def split_increment(
    rule: UpdateRule,
    t: Float[Array, ""],
    z: Split,
    grads: Float[Array, "2 d"],
    reach: Float[Array, ""],
) -> tuple[Split, PyTree]:
    """Return G(z) by the gradients at w of z̄ + θζ and z̄ - θζ; and the mean absorbed state."""
    (c, mean), (v, swing) = z
    ahead = rule.absorb(t, add(mean, swing, reach), grads[0])
    behind = rule.absorb(t, add(mean, swing, -reach), grads[1])
    push, pull = displacement(rule, t, ahead, grads[0])
    back, tug = displacement(rule, t, behind, grads[1])
    absorbed = jax.tree.map(lambda a, b: 0.5 * (a + b), ahead, behind)
    # ½(F₊ - F₋)/θ of the state is ½(U₊ - U₋)/θ - ζ, so that -2ζ leaves -ζ
    turned = jax.tree.map(lambda y, a, b: -y - 0.5 * (a - b) / reach, swing, ahead, behind)
    half_sum = 0.5 * (push + back) + 0.5 * (pull(c) + tug(c))
    half_sum += 0.5 * reach * (pull(v) - tug(v))
    half_gap = 0.5 * (push - back) / reach + 0.5 * (pull(c) - tug(c)) / reach
    half_gap += 0.5 * (pull(v) + tug(v))
    moved = Split(Whole(half_sum, add(absorbed, mean, -1.0)), Whole(-2.0 * v - half_gap, turned))
    return moved, absorbed


class BothSides(NamedTuple):
    """The loss at the two points of a pair; `products` maps rows v± to rows H±v±."""

    values: Float[Array, "2"]
    grads: Float[Array, "2 d"]
    products: Callable[[Float[Array, "2 d"]], Float[Array, "2 d"]]


def linearize_both(loss: Loss, points: Float[Array, "2 d"]) -> BothSides:
    """Linearize a loss at two points, one after the other through one compiled code."""

    def both(rows: Float[Array, "2 d"]) -> tuple[Array, Array]:
        return jax.lax.map(jax.value_and_grad(loss), rows)

    with float_mode(points.dtype):
        (values, grads), tangent = jax.linearize(both, points)

    def products(rows: Float[Array, "2 d"]) -> Float[Array, "2 d"]:
        with float_mode(points.dtype):
            return tangent(rows)[1]

    return BothSides(values, grads, products)


def split_rate(
    context: FlowContext, t: Float[Array, ""], z: Split, order: int, reach: Float[Array, ""]
) -> tuple[Split, Seen]:
    """Return z' = G (order 1) or z' = G - ½ DG·G (order 2), with t' = 1; and what was seen.

    Two gradients, and at order 2 two Hessian products: the derivative of G sees the loss only
    through H₊ and H₋, all else is the rule.
    """
    sides = jnp.stack([jnp.ones_like(reach), -jnp.ones_like(reach)])[:, None] * reach
    at = linearize_both(context.loss, z.mean.params + sides * z.swing.params)
    rule = context.rule

    def G(t: Array, z: Split, grads: Array) -> tuple[Split, PyTree]:
        return split_increment(rule, t, z, grads, reach)

    rate, absorbed = G(t, z, at.grads)
    seen = Seen(
        loss=jnp.mean(at.values),
        grad_norm_sq=0.5 * jnp.sum(at.grads**2),
        curvature=jnp.vdot(z.swing.params, at.grads[0] - at.grads[1]) / (2.0 * reach),
        absorbed=absorbed,
    )
    if order == 2:
        turning = at.products(rate.mean.params + sides * rate.swing.params)
        bend = jax.jvp(G, (t, z, at.grads), (jnp.ones_like(t), rate, turning))[1][0]
        rate = add(rate, bend, -0.5)
    return rate, seen


# Where a split begins, and what keeps its swing alive ---------------------------------------------


def begin_split(context: FlowContext, start: Start, grad: Float[Array, " d"]) -> Split:
    """Split x_0 by the second difference ζ = ¼(2x_0 - x_1 - x_{-1}) of the whole state.

    Without x_{-1} the swing lies along the first step, as long as a seed (`seed_length`).
    """
    rule = context.rule
    here = Whole(start.params, start.rule_state)
    before = Whole(start.previous, start.previous_state)
    forward = increment(rule, start.t, here, grad)[0]
    second = jax.tree.map(lambda f, x, b: 0.25 * ((x - b) - f), forward, here, before)
    metric = rule.edge_preconditioner(start.t, start.absorbed)
    size = seed_length(context.options, metric, start.params, forward.params, forward.params)
    first = forward.params * (size / jnp.maximum(length(metric, forward.params), LEAST_LENGTH))
    seed = Whole(first, jax.tree.map(jnp.zeros_like, here.state))
    swing = jax.tree.map(lambda a, b: jnp.where(start.has_previous, a, b), second, seed)
    return Split(add(here, swing, -1.0), swing)


def feed(
    options: FlowOptions, metric: Float[Array, "..."], z: Split, stride: Float[Array, " d"]
) -> Split:
    """Return z with its swing kept alive (`seeds.py`); `stride` is the step that the mean made.

    The whole swing is scaled: below the edge it obeys a linear equation.
    """
    factor = seed_factor(options, metric, z.mean.params, z.swing.params, stride)
    return z._replace(swing=jax.tree.map(lambda x: factor * x, z.swing))


def reach_of(metric: Float[Array, "..."], z: Split) -> Float[Array, ""]:
    """Return θ = max(1, ℓ / |v|)."""
    v = z.swing.params
    least = resolved_length(metric, z.mean.params, v)
    return jnp.maximum(1.0, least / jnp.maximum(length(metric, v), LEAST_LENGTH))


def resolved_length(
    metric: Float[Array, "..."], params: Float[Array, " d"], v: Float[Array, " d"]
) -> Float[Array, ""]:
    """Return ℓ = σ eps^{-2/3}: rounding and bending cost a difference along v as much."""
    eps = float(jnp.finfo(v.dtype).eps)
    return rounding_length(metric, params, v) * eps ** (-2.0 / 3.0)
