"""Schemes of the inertial flow: order of convergence, and stability of its own fast oscillation.

The flow of a quadratic, made of the moves of `flows/integrators.py` without a critical direction;
the central flow's own order is fitted in `test_analytic.py`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray.flows.integrators import INTEGRATORS, Place, euler_move
from cflows_ray.rules import Adam, GradientDescent, Moments, traced
from tests.oracles.analytic import quadratic_flow
from tests.oracles.momentum import MomentumRule

STEPS = 10
START = np.array([1.0, -0.5, 2.0])
SHARES = np.array([0.05, 0.3, 0.9])  # effective eigenvalues over 2


@functools.partial(jax.jit, static_argnames="scheme")
def follow(rule, scheme, curvatures, substeps, steps):
    """Return w after so many steps on ½Σλw², from START, and the largest |w| on the way."""
    integrator = INTEGRATORS[scheme]()
    w, one = jnp.asarray(START), jnp.ones(())
    begin = Place(w, rule.absorb(one, rule.init(w), curvatures * w), one)

    def substep(i, carry):
        here, kept, largest = carry
        seen = Moments.still(curvatures * here.params)
        lengths = (length / substeps for length in integrator.lengths)
        moves = tuple(euler_move(rule, here, seen, length).place for length in lengths)
        place, kept = integrator.combine(rule, i % substeps, moves, kept)
        return place, kept, jnp.maximum(largest, jnp.max(jnp.abs(place.params)))

    carry = begin, integrator.begin(begin), jnp.zeros(())
    place, _, largest = jax.lax.fori_loop(0, steps * substeps, substep, carry)
    return place.params, largest


def heavy_ball(beta):
    return GradientDescent(0.1, momentum=beta), 2.0 * (1.0 + beta) / 0.1


def adam(beta):
    # ν hardly moves: P = (√ν̂ + ε)/η
    rule = Adam(0.02, beta1=beta, beta2=0.999)
    return rule, 2.0 * (1.0 + beta) / (1.0 - beta) / 0.02


def errors_of(rule, scheme, curvatures, exact):
    found = [follow(rule, scheme, curvatures, n, STEPS)[0] for n in (64, 128, 256)]
    return np.array([np.linalg.norm(w - exact) for w in found])


@pytest.mark.parametrize(("scheme", "order"), [("euler", 1), ("extrapolated", 2)])
@pytest.mark.parametrize("beta", [0.9, 0.99])
@pytest.mark.parametrize("make", [heavy_ball, adam])
def test_order_of_convergence(make, beta, scheme, order):
    rule, edge = make(beta)
    with jax.enable_x64(True):
        given = traced(rule, "float64")
        if make is heavy_ball:
            curvatures = jnp.asarray(SHARES * edge)
            oracle = MomentumRule("sgd", 0.1, beta1=beta)
            begin = oracle.absorb(oracle.init(START), np.asarray(curvatures) * START)
            exact = quadratic_flow(np.diag(curvatures), oracle, begin, np.array([STEPS]))[0][0]
        else:
            curvatures = jnp.ones(3)
            exact = follow(given, "extrapolated", curvatures, 4096, STEPS)[0]
        errors = errors_of(given, scheme, curvatures, exact)
    slopes = np.log2(errors[:-1] / errors[1:])
    assert errors[0] < 0.03 * np.linalg.norm(START)
    assert np.all(np.abs(slopes - order) < 0.2), (slopes, errors)


@pytest.mark.parametrize("scheme", ["euler", "extrapolated"])
@pytest.mark.parametrize("beta", [0.9, 0.99])
def test_four_substeps_are_stable_at_the_edge(beta, scheme):
    """The flow oscillates by itself, at about 2 radians a step at the edge; it must die out."""
    rule, edge = heavy_ball(beta)
    with jax.enable_x64(True):
        curvatures = jnp.full(3, edge)
        w, largest = follow(traced(rule, "float64"), scheme, curvatures, 4, 1500)
    assert float(largest) < 5.0 * np.max(np.abs(START))
    assert np.max(np.abs(w)) < 1e-2


def test_explicit_euler_would_not_be():
    """The same oscillation with m moved after w, as plain Euler does: it grows by half a step."""
    beta, h = 0.9, 0.25
    rate = np.array([[0.0, -0.1], [2.0 * 1.9 / 0.1 / beta, -(1.0 - beta) / beta]])
    a_step = np.linalg.matrix_power(np.eye(2) + h * rate, 4)
    assert np.max(np.abs(np.linalg.eigvals(a_step))) > 1.4
