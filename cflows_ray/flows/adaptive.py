"""The adaptive scheme: second order with one evaluation a substep, whose length it chooses itself.

A flow y' = R(y, X), y = (w, s), from where it has been evaluated, with R = R(y, Z):

    y(t + h) = y + h φ₁(hK) R + h² φ₂(hK) (R' + K y'),
    φ₁(z) = (1 - e⁻ᶻ)/z,     φ₂(z) = (1 - φ₁(z))/z

R' is the slope of R since the last evaluation, at the same X, so that a jump of X is none of R'; Z,
the X of the substep, is what holds the edge at its end (`central_covariance.py`). K = Σ κᵤ u uᵀQ̂
over the tracked eigenvectors is how fast the flow relaxes along them, which is known and taken
exactly: with K = 0 this is the Adams-Bashforth scheme of second order, unstable at the edge with
h = 1. Of the kind of exponential Adams schemes (Hochbruck, Ostermann, Acta Numerica 19, 2010); that
K follows the eigenvectors, and all that concerns X, is derived in docs/theory.md, "The adaptive
scheme".

s has no K, but a filter's memory m relaxes at a known rate r = (1-β)/β as well, dm/dt = F - r m:
its step is the same with r for K, and F for R.

Where the flow arrives it sees which slope would have been right: the difference is the estimate of
the local error, and decides on the next length, a power of two.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from cflows_ray.flows.exponential import bent, phi, relaxed
from cflows_ray.flows.integrators import Place
from cflows_ray.rules import AveragedRule, Moments, Motion

PARTS: Final = 64
"""A substep is a power of two of this part of an optimizer step."""
FIRST: Final = 1
"""Parts of the first substep, which is one of Euler's."""
MOST_MEMORY: Final = 0.6
"""Largest share of the old slope in the new one."""

MOST_TURN: Final = 0.5
"""Radians of an oscillation of the filter's memory in a substep, at most.

Where it is a part of the way, the estimate of the error asks for less: left to itself, the scheme
would make it grow by (turn)⁴/4 a substep.
"""

MOST_FORGOTTEN: Final = 0.5
"""Rate of an average times a substep, at most; the scheme is stable up to 1."""

Number = Float[Array, ""]


class Turning(NamedTuple):
    """How fast eigenvectors turn out of their span, in rows, a step; new directions have zeros."""

    rows: Float[Array, "k d"]

    def grown(self, k: int, key: Array) -> Turning:
        """Return it with rows of zeros below."""
        del key
        return Turning(jnp.pad(self.rows, ((0, k - self.rows.shape[0]), (0, 0))))


class Past(NamedTuple):
    """What the scheme keeps of the last substep.

    Attributes:
        error: estimated local errors added up, L2, in the unit of parameters.
        rate: dw/dt where it began, and F of ds/dt = F - r s (`forcing`).
        slope: how fast these change, seen over the substep before.
        course: dw/dt, the mean over the same time as `slope`, shape (d,).
        way: by what w has moved, shape (d,).
        length: of it; 0 before the first.
        size: of it, in 64ths of an optimizer step; a power of two.
        turning: of the eigenvectors where it began.
    """

    error: Number
    rate: Motion
    slope: Motion
    course: Float[Array, " d"]
    way: Float[Array, " d"]
    length: Number
    size: Int[Array, ""]
    turning: Turning

    @classmethod
    def begin(cls, params: Float[Array, " d"], state: PyTree, num_eigs: int) -> Past:
        """Return what a flow keeps that starts at w and s, with so many tracked directions."""
        zero, zeros = jnp.zeros((), params.dtype), jnp.zeros_like(params)
        rate = Motion(zeros, jax.tree.map(jnp.zeros_like, state))
        turning = Turning(jnp.zeros((num_eigs, params.size), params.dtype))
        size = jnp.full((), FIRST, jnp.int32)
        return cls(zero, rate, rate, zeros, zeros, zero, size, turning)


class Relaxation(NamedTuple):
    """K: rates κ at which the flow relaxes along eigenvectors u, given by rows U and Q̂U."""

    vectors: Float[Array, "k d"]
    duals: Float[Array, "k d"]
    rates: Float[Array, " k"]

    def times(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """Return K x."""
        return (self.rates * (self.duals @ x)) @ self.vectors

    def phi(self, order: int, length: Number, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """Return φ₁(hK) x or φ₂(hK) x, of vectors in rows."""
        whole = 1.0 / order
        less = phi(order, length * self.rates) - whole
        return whole * x + (less.astype(x.dtype) * (x @ self.duals.T)) @ self.vectors


def relaxation(
    rule: AveragedRule,
    here: Place,
    grad: Float[Array, " d"],
    vectors: Float[Array, "k d"],
    products: Float[Array, "k d"],
    duals: Float[Array, "k d"],
    known: Bool[Array, " k"],
) -> Relaxation:
    """Return K, from what the rule's velocity makes of a gradient: κᵤ = -uᵀQ̂ (dw/dt)[Hu].

    For a rule without momentum the effective eigenvalue of u, or a little less.

    Args:
        rule: the averaged rule.
        here: where the flow is.
        grad: the gradient there.
        vectors: eigenvectors U, as rows.
        products: HU.
        duals: Q̂U.
        known: which rows are eigenvectors.
    """

    def velocity(grad: Float[Array, " d"]) -> Float[Array, " d"]:
        seen = Moments.still(grad)
        return rule.motion(here.t, here.params, here.state, seen, 0.0).params

    response = jax.vmap(jax.linearize(velocity, grad)[1])(products)
    rates = -jnp.sum(duals * response, axis=1)
    return Relaxation(vectors, duals, jnp.where(known, jnp.maximum(rates, 0.0), 0.0))


class Seen(NamedTuple):
    """What an arrival tells: slopes from now on, and the estimated local error of the last substep.

    `ratio` is the error over that which is allowed; 0 where there was no substep.
    """

    slope: Motion
    course: Float[Array, " d"]
    error: Number
    ratio: Number


def arrive(
    past: Past, rate: Motion, relaxes: Relaxation, tolerance: float | Number, fastest: Number
) -> Seen:
    """Return what the last substep's end tells.

    Args:
        past: of that substep.
        rate: where it ended, at the X with which it was made, with F.
        relaxes: K there.
        tolerance: allowed error over the way.
        fastest: rates outside K are at most this; the faster, the more of the old slope stays.
    """
    began = past.length > 0
    over = jnp.where(began, past.length, 1.0)
    slope = jax.tree.map(lambda b, a: jnp.where(began, (b - a) / over, 0.0), rate, past.rate)
    course = past.way / over
    wrong = (slope.params - past.slope.params) + relaxes.times(course - past.course)
    error = jnp.linalg.norm(past.length**2 * relaxes.phi(2, past.length, wrong))
    allowed = tolerance * jnp.linalg.norm(past.way)
    ratio = jnp.where(error > 0, error / allowed, 0.0)
    # the scheme is stable outside K to rates of (1 + memory) / h
    memory = jnp.clip(1.1 * past.length * jnp.nan_to_num(fastest) - 1.0, 0.0, MOST_MEMORY)
    mix = lambda old, new: memory * old + (1.0 - memory) * new  # noqa: E731
    return Seen(jax.tree.map(mix, past.slope, slope), mix(past.course, course), error, ratio)


def choose(past: Past, ratio: Number, position: Int[Array, ""], longest: Number) -> Int[Array, ""]:
    """Return the size of the next substep, in 64ths of an optimizer step.

    The error over the way goes with h²: halved until that is allowed; doubled where it would be by
    far, but not across a multiple of the new length.

    Args:
        past: of the last substep.
        ratio: of its error to that which is allowed.
        position: of the next one in its optimizer step, in 64ths.
        longest: at most, in optimizer steps.
    """
    finer = jnp.ceil(0.5 * jnp.log2(jnp.maximum(jnp.nan_to_num(ratio, nan=1.0), 1e-9)))
    finer = jnp.clip(finer, -1, 6).astype(jnp.int32)
    may_double = (finer < 0) & (4.0 * ratio < 0.7) & (position % (2 * past.size) == 0)
    size = jnp.where(finer > 0, past.size >> jnp.maximum(finer, 0), past.size)
    size = jnp.where(may_double & (past.length > 0), 2 * past.size, size)
    bound = jnp.floor(jnp.log2(jnp.maximum(longest, 1.0 / PARTS)) + 1e-6)
    most = jnp.exp2(jnp.clip(bound, -6, 0)) * PARTS
    return jnp.clip(size, 1, jnp.minimum(most.astype(jnp.int32), PARTS))


def ahead(
    rule: AveragedRule, here: Place, rate: Motion, seen: Seen, relaxes: Relaxation, h: Number
) -> Place:
    """Return where a substep of length h leads, by the rates and slopes where it begins."""
    params = here.params + h * relaxes.phi(1, h, rate.params) + later(seen, relaxes, h)
    euler = relaxed(rule, here.state, rate.state, h)
    whole = jax.tree.map(jnp.add, euler, bent(rule, here.state, seen.slope.state, h))
    return Place(params, rule.admissible(whole, euler), here.t + h)


def later(seen: Seen, relaxes: Relaxation, h: Number) -> Float[Array, " d"]:
    """Return the part of a substep of w that is due to slopes."""
    slope = seen.slope.params + relaxes.times(seen.course)
    return h**2 * relaxes.phi(2, h, slope)


def longest_stable(rule: AveragedRule, t: Number, sharpness: Number, relaxes: Relaxation) -> Number:
    """Return how long a substep may be, by the rates that are not in K.

    That is the oscillation of a rule with momentum, and how fast an average in its state forgets.
    """
    left = rule.fastest_rate(t, sharpness) - jnp.max(relaxes.rates)
    turning = MOST_TURN / jnp.maximum(jnp.nan_to_num(left), MOST_TURN)
    return jnp.minimum(turning, MOST_FORGOTTEN / jnp.maximum(rule.averaging_rate(), MOST_FORGOTTEN))
