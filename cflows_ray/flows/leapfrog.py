"""Leapfrog: the stable flow of a rule with momentum, of second order, a gradient a substep.

    s ← h/2 of ds/dt = f(s, w, g)                              (w and g held)
    w ← w + h/2 [F(s, w, g) + F(s, w̃, g̃)],    w̃ = w + h F(s, w, g),    g̃ = ∇L(w̃)
    s ← h/2 of ds/dt = f(s, w̃, g̃)                              (g̃ held, at the next substep too)

F = dw/dt, at the time of the middle. A filter's memory relaxes exactly (`exponential.py`), the rest
of s by Heun's scheme. Where F knows neither w nor g (heavy ball, Adam) it is the composition of
Strang, *On the construction and comparison of difference schemes*, SIAM J. Numer. Anal. 5 (1968),
symmetric in time: the inertial flow's oscillation at √(λ/β₁) radians a step decays as it should,
e^{-(1-β₁)/(2β₁)} a step, up to hω = 2, and only its phase is wrong, by (hω)²/24 a radian. Where F
does (Nesterov, weight decay), w moves by Heun's scheme within it.

But a memory that forgets within the substep (β₁ < 0.1) is not that of the middle at its end. So it
counts in the second F as far as it settles, (1 - φ₁(hγ))² of the way, γ = (1-β₁)/β₁: as β₁ → 0 the
whole is Heun's scheme, and at β₁ = 0.9 this hardly acts. docs/theory.md, "Stable flow".
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from cflows_ray.curvature import Loss, value_and_grad
from cflows_ray.flows.exponential import heun, settled
from cflows_ray.flows.integrators import Move, Place
from cflows_ray.flows.trust import Followed, Passed
from cflows_ray.rules import AveragedRule, Moments


def follow(
    loss: Loss,
    rule: AveragedRule,
    here: Place,
    grad: Float[Array, " d"],
    passed: Passed,
    substeps: Int[Array, ""],
) -> Followed:
    """Return where one optimizer step leads; it takes 1 + `substeps` gradients, `grad` included.

    Args:
        loss: of flat parameters.
        rule: the averaged rule.
        here: where the flow is.
        grad: the gradient there.
        passed: what it keeps for the estimate of its error.
        substeps: into how many the step is divided; 0 makes none.
    """
    h = 1.0 / jnp.maximum(substeps, 1).astype(here.params.dtype)

    def substep(_: Array, carry: tuple[Place, Array, Passed]) -> tuple[Place, Array, Passed]:
        place, grad, passed = carry
        arrived = passed.arrive(rule, place, Moments.still(grad))
        move, grad = _substep(loss, rule, place, grad, h)
        return move.place, grad, arrived.leave(move.velocity, h)

    place, _, end = jax.lax.fori_loop(0, substeps, substep, (here, grad, passed))
    error_here = passed.arrive(rule, here, Moments.still(grad)).error
    return Followed(place, end, error_here)


def _substep(
    loss: Loss, rule: AveragedRule, here: Place, grad: Float[Array, " d"], h: Float[Array, ""]
) -> tuple[Move, Float[Array, " d"]]:
    """Return where a substep leads, and the gradient that s follows in its second half."""
    middle = state_after(rule, here, grad, 0.5 * h)

    def rate(params: Array, state: PyTree, grad: Array) -> Array:
        return rule.motion(middle.t, params, state, Moments.still(grad), 0.0).params

    before = rate(here.params, middle.state, grad)
    reached = here.params + h * before
    grad = value_and_grad(loss, reached)[1]
    end = state_after(rule, middle._replace(params=reached), grad, 0.5 * h)
    # a memory that forgets within the substep is at its end what it has been fed there
    state = settled(rule, middle.state, settled(rule, middle.state, end.state, h), h)
    velocity = 0.5 * (before + rate(reached, state, grad))
    return Move(end._replace(params=here.params + h * velocity), velocity), grad


def state_after(
    rule: AveragedRule, here: Place, grad: Float[Array, " d"], h: Float[Array, ""]
) -> Place:
    """Return the place after the rule's state has followed a gradient for a time h; w stays.

    ds/dt = F(s) - r s by Heun's scheme, r (`rule.memory_rates`) exactly.
    """
    seen, later = Moments.still(grad), here.t + h

    def rate(t: Array, state: PyTree) -> PyTree:
        return rule.motion(t, here.params, state, seen, 0.0).state

    begin = rate(here.t, here.state)
    end = heun(rule, here.state, begin, lambda state: rate(later, state), h, here.state)
    return here._replace(state=end.whole, t=later)
