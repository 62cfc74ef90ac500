"""Runge-Kutta-Chebyshev: an explicit scheme for fast rates that are real, of second order.

Euler needs substeps in proportion to the fastest rate ρ. Here a step of length h has s stages of a
gradient each, whose combination is a Chebyshev polynomial stretched over the negative real axis:

    w_{n+1} = P_s(z) w_n  for w' = λw, z = hλ;    P_s(z) = a_s + b_s T_s(w₀ + w₁ z)
    |P_s| ≤ 1 for -β(s) ≤ z ≤ 0,    β(s) ≈ 0.653 (s² - 1)

so that s grows with √(hρ) only. Sommeijer, Shampine, Verwer, *RKC: an explicit solver for
parabolic PDEs*, J. Comput. Appl. Math. 88 (1998); w₀ = 1 + ε/s² with the damping ε = 2/13.

The whole place (w, s, t) goes through the stages. Off the real axis the region of stability is
narrow: rules with momentum, whose flow oscillates, leap instead (`leapfrog.py`).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cflows_ray.curvature import Loss, value_and_grad
from cflows_ray.flows.integrators import Move, Place
from cflows_ray.flows.trust import Followed, Passed
from cflows_ray.rules import AveragedRule, Moments

DAMPING = 2.0 / 13.0
# (s² - 1) / 1.54 is a little below β(s) for every s
STAGES_PER_ROOT = 1.54
LEAST_STAGES = 2
# Of the embedded estimate, in trapezoidal rule less displacement: 12/15.
TRUST = 0.8


class Steps(NamedTuple):
    """How an optimizer step is divided: `number` steps of `stages` gradients each."""

    number: Int[Array, ""]
    stages: Int[Array, ""]

    @property
    def gradients(self) -> Int[Array, ""]:
        """Gradients in all, the one where the optimizer step begins included."""
        return self.number * self.stages


def num_stages(reach: Float[Array, ""]) -> Int[Array, ""]:
    """Return the least s with β(s) ≥ hρ, at least 2; `reach` is hρ.

    Example:
        >>> [int(num_stages(jnp.asarray(x))) for x in (0.5, 2.0, 100.0)]
        [2, 3, 13]
    """
    stages = 1.0 + jnp.floor(jnp.sqrt(1.0 + STAGES_PER_ROOT * jnp.maximum(reach, 0.0)))
    return jnp.maximum(stages, LEAST_STAGES).astype(jnp.int32)


class _Polynomial(NamedTuple):
    """T_j, T'_j and T''_j at w₀."""

    value: Float[Array, ""]
    slope: Float[Array, ""]
    bend: Float[Array, ""]


class _Stage(NamedTuple):
    """T_j and b_j of a stage."""

    chebyshev: _Polynomial
    b: Float[Array, ""]

    @property
    def a(self) -> Float[Array, ""]:
        """a_j = 1 - b_j T_j(w₀)."""
        return 1.0 - self.b * self.chebyshev.value


def _next(x: Array, now: _Polynomial, before: _Polynomial) -> _Polynomial:
    """Return T_{j+1} = 2x T_j - T_{j-1} and its derivatives."""
    return _Polynomial(
        2.0 * x * now.value - before.value,
        2.0 * now.value + 2.0 * x * now.slope - before.slope,
        4.0 * now.slope + 2.0 * x * now.bend - before.bend,
    )


class Coefficients(NamedTuple):
    """w₀ and w₁ of the scheme with s stages, and its stages 0 and 1."""

    w0: Float[Array, ""]
    w1: Float[Array, ""]
    zeroth: _Stage
    first: _Stage

    @classmethod
    def of(cls, stages: Int[Array, ""]) -> Coefficients:
        """Return them in the widest floating-point type."""
        # nothing is combined where a step has one stage only, the first
        stages = jnp.maximum(stages, LEAST_STAGES)
        one = jnp.ones((), jnp.result_type(float))
        w0 = one + DAMPING / stages.astype(one.dtype) ** 2
        ends = _Polynomial(one, 0.0 * one, 0.0 * one), _Polynomial(w0, one, 0.0 * one)

        def raised(_: Array, pair: tuple[_Polynomial, _Polynomial]) -> tuple:
            before, now = pair
            return now, _next(w0, now, before)

        last = jax.lax.fori_loop(1, stages, raised, ends)[1]
        b = 0.25 / w0**2  # of stage 2, and of those before
        return cls(w0, last.slope / last.bend, _Stage(ends[0], b), _Stage(ends[1], b))

    def following(self, now: _Stage, before: _Stage) -> tuple[_Stage, tuple[Array, ...]]:
        """Return the stage after two others, with its μ, ν, μ̃ and γ̃."""
        chebyshev = _next(self.w0, now.chebyshev, before.chebyshev)
        b = chebyshev.bend / chebyshev.slope**2
        taken = 2.0 * b * self.w1 / now.b
        weights = 2.0 * b * self.w0 / now.b, -b / before.b, taken, -now.a * taken
        return _Stage(chebyshev, b), weights


class _Combined(NamedTuple):
    """How far the last two stages are from where the step began, and the last gradient."""

    now: Place
    before: Place
    stage: _Stage
    stage_before: _Stage
    grad: Float[Array, " d"]


def follow(
    loss: Loss,
    rule: AveragedRule,
    here: Place,
    grad: Float[Array, " d"],
    passed: Passed,
    steps: Steps,
) -> Followed:
    """Return where one optimizer step leads; it takes number × stages gradients, `grad` included.

    Args:
        loss: of flat parameters.
        rule: the averaged rule; `relaxes`.
        here: where the flow is.
        grad: the gradient there.
        passed: what it keeps for the estimate of its error.
        steps: how the step is divided.
    """
    length = 1.0 / steps.number.astype(here.params.dtype)
    coefficients = Coefficients.of(steps.stages)

    def step(i: Array, carry: tuple[Place, Array, Passed]) -> tuple[Place, Array, Passed]:
        place, grad, passed = carry
        arrived = arrive(passed, rule, place, grad)
        goes_on = i + 1 < steps.number
        move, grad = _step(loss, rule, place, grad, length, coefficients, steps.stages, goes_on)
        return move.place, grad, arrived.leave(move.velocity, length)

    place, _, end = jax.lax.fori_loop(0, steps.number, step, (here, grad, passed))
    return Followed(place, end, arrive(passed, rule, here, grad).error)


def arrive(passed: Passed, rule: AveragedRule, here: Place, grad: Float[Array, " d"]) -> Passed:
    """Return `passed` at the start of a step: the scheme's own estimate of the last one's error.

    0.8 (w_n - w_{n+1}) + 0.4 h (F_n + F_{n+1}), F = dw/dt. The rule's state is the scheme's own: of
    second order as it is.
    """
    rate = rule.motion(here.t, here.params, here.state, Moments.still(grad), 0.0)
    owed = passed.owed + 0.5 * passed.length * (passed.rate.params + rate.params)
    return Passed(
        error=passed.error + TRUST * jnp.linalg.norm(owed),
        owed=jnp.zeros_like(owed),
        state=here.state,
        rate=rate,
        length=passed.length,
    )


def _step(
    loss: Loss,
    rule: AveragedRule,
    here: Place,
    grad: Float[Array, " d"],
    length: Float[Array, ""],
    coefficients: Coefficients,
    stages: Int[Array, ""],
    goes_on: Bool[Array, ""],
) -> tuple[Move, Float[Array, " d"]]:
    """Return where a step leads, and the gradient there if another one follows.

    Stages are kept by their distance from the start, D_j = Y_j - Y_0, which rounds less:

        D_1 = b_1 w₁ h F_0,    D_j = μ D_{j-1} + ν D_{j-2} + μ̃ h F_{j-1} + γ̃ h F_0
    """

    def rate_at(place: Place, grad: Array) -> Place:
        rate = rule.motion(place.t, place.params, place.state, Moments.still(grad), 0.0)
        return _scaled(length, Place(rate.params, rate.state, jnp.ones_like(place.t)))

    def moved(by: Place) -> Place:
        place = jax.tree.map(jnp.add, here, by)
        return place._replace(state=rule.admissible(place.state, here.state))

    start, first = rate_at(here, grad), coefficients.first

    def advance(_: Array, carry: _Combined) -> _Combined:
        at = moved(carry.now)
        grad = value_and_grad(loss, at.params)[1]
        stage, weights = coefficients.following(carry.stage, carry.stage_before)
        parts = carry.now, carry.before, rate_at(at, grad), start
        terms = [_scaled(c, part) for c, part in zip(weights, parts, strict=True)]
        ahead = jax.tree.map(lambda *xs: sum(xs[1:], xs[0]), *terms)
        return _Combined(ahead, carry.now, stage, carry.stage, grad)

    begin = _Combined(
        _scaled(first.b * coefficients.w1, start),
        jax.tree.map(jnp.zeros_like, here),
        first,
        coefficients.zeroth,
        grad,
    )
    # a turn more gives the gradient at the end, and a stage that is not used
    end = jax.lax.fori_loop(1, stages + goes_on, advance, begin)
    by = jax.tree.map(lambda now, before: jnp.where(goes_on, before, now), end.now, end.before)
    return Move(moved(by), by.params / length), end.grad


def _scaled(factor: Float[Array, ""], place: Place) -> Place:
    return jax.tree.map(lambda x: factor.astype(x.dtype) * x, place)
