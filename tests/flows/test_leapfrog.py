"""Leapfrog: the decay of an oscillation, its order and its estimate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from cflows_ray import GradientDescent, PairedOptions
from cflows_ray.flows import FlowContext, stable
from cflows_ray.flows.integrators import Place
from cflows_ray.flows.leapfrog import follow, state_after
from cflows_ray.flows.trust import Passed
from cflows_ray.rules import Adam, AdamW, Motion, NAdam, RMSProp, ScalarAdam, traced
from tests.flows.stable_flow import LOSS, PARAMS, begin

RULES_WITH_MOMENTUM = {
    "heavy ball": GradientDescent(0.3, momentum=0.9),
    "nesterov": GradientDescent(0.3, momentum=0.9, nesterov=True),
    "a schedule": GradientDescent(0.3, momentum=0.5, schedule="exponential:4:0.5"),
    "weight decay": GradientDescent(0.3, momentum=0.9, weight_decay=0.1),
    "rmsprop": RMSProp(0.01, beta2=0.9, momentum=0.9),
    "rmsprop with bias correction": RMSProp(0.01, beta2=0.9, momentum=0.9, bias_correction=True),
    "adam": Adam(0.01, beta2=0.9),
    "scalar adam": ScalarAdam(0.1, beta2=0.9),
    "adamw": AdamW(0.01, beta2=0.9, weight_decay=0.1),
    "nadam": NAdam(0.01, beta2=0.9),
}


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


@functools.partial(jax.jit, static_argnames="loss")
def advance(rule, loss, w, substeps, steps):
    """Return the place after so many optimizer steps, and the estimated error."""

    def step(_, carry):
        here, passed = carry
        return follow(loss, rule, here, jax.grad(loss)(here.params), passed, substeps)[:2]

    here, passed = jax.lax.fori_loop(0, steps, step, begin(rule, loss, w))
    grad = jax.grad(loss)(here.params)
    return here, follow(loss, rule, here, grad, passed, 0).error_here


# The oscillation of a quadratic -------------------------------------------------------------------


def parabola(eigenvalue, w):
    return 0.5 * eigenvalue * jnp.sum(w**2)


@jax.jit
def matrix_of_a_step(rule, eigenvalue, substeps):
    """Return the matrix by which an optimizer step of the flow on a parabola moves (w, m)."""
    loss = functools.partial(parabola, eigenvalue)

    def moved(z):
        w, m = z[:1], z[1:]
        here = Place(w, rule.init(w)._replace(momentum=m), jnp.ones(()))
        passed = Passed.begin(w, here.state)
        place = follow(loss, rule, here, jax.grad(loss)(w), passed, substeps).place
        return jnp.concatenate([place.params, place.state.momentum])

    return jax.jacfwd(moved)(jnp.ones(2))


@pytest.mark.parametrize("share", [0.1, 1.0, 5.0, 50.0])
@pytest.mark.parametrize("beta", [0.5, 0.9, 0.99])
def test_an_oscillation_decays_as_that_of_the_flow(beta, share):
    """Heavy ball: |z|² = e^{-γ} a step, with as few as ω substeps; the phase goes with h².

    What a settling memory adds, (1 - φ₁(hγ))² ≈ (hγ/2)² of half a kick, damps by γ²h³λ/(32β) more.
    """
    eigenvalue, gamma = share * 2.0 * (1.0 + beta), (1.0 - beta) / beta
    omega = np.sqrt(eigenvalue / beta - gamma**2 / 4)
    rule, errors = traced(GradientDescent(1.0, momentum=beta), "float64"), []
    for refined in (1, 2, 4):
        substeps = refined * max(3, int(np.ceil(omega)))
        found = np.linalg.eigvals(matrix_of_a_step(rule, eigenvalue, substeps))
        more = gamma**2 * eigenvalue / beta / substeps**3 / 32
        np.testing.assert_allclose(np.abs(found), np.exp(-gamma / 2), rtol=1.2 * more)
        phase = np.exp(1j * omega - gamma / 2)
        errors.append(np.min(np.abs(found - phase)))
        assert errors[-1] < 0.1 * omega * (omega / substeps) ** 2
    slopes = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.all(np.abs(slopes - 2.0) < 0.3), errors


@pytest.mark.parametrize("share", [0.5, 1.0, 2.0, 20.0])
@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9, 0.99])
def test_nesterov_is_stable_with_the_substeps_that_the_flow_takes(beta, share):
    rule = traced(GradientDescent(1.0, momentum=beta, nesterov=True), "float64")
    gain = float(rule.gradient_filter(jnp.ones(())).fast_gain)
    eigenvalue = share * 2.0 / gain
    fastest = float(rule.fastest_rate(jnp.ones(()), jnp.asarray(2.0 * share)))
    found = matrix_of_a_step(rule, eigenvalue, max(3, int(np.ceil(2.0 * fastest))))
    rate = np.array([[-eigenvalue, -beta], [eigenvalue / beta, -(1.0 - beta) / beta]])
    exact = np.max(np.abs(np.linalg.eigvals(scipy.linalg.expm(rate))))
    assert np.max(np.abs(np.linalg.eigvals(found))) == pytest.approx(exact, abs=0.03)


def test_a_memory_that_forgets_at_once_holds_what_it_is_fed():
    """β → 0: m is the gradient itself after half a substep, and does not overshoot."""
    rule = traced(GradientDescent(1.0, momentum=1e-6), "float64")
    w, grad = jnp.zeros(3), jnp.array([1.0, -2.0, 0.5])
    here = Place(w, rule.init(w), jnp.ones(()))
    found = state_after(rule, here, grad, 0.125)
    np.testing.assert_allclose(found.state.momentum, grad / (1.0 - 1e-6), rtol=1e-12)
    assert float(found.t) == 1.125
    np.testing.assert_array_equal(found.params, w)


# Order --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES_WITH_MOMENTUM)
def test_order_two_and_an_estimate_of_the_error(rule):
    rule, w = traced(RULES_WITH_MOMENTUM[rule], jnp.float64), jnp.asarray(PARAMS)
    exact = advance(rule, LOSS, w, 512, 3)[0]
    errors, of_state, estimates = [], [], []
    for substeps in (8, 16, 32):
        found, estimate = advance(rule, LOSS, w, substeps, 3)
        errors.append(float(np.linalg.norm(found.params - exact.params)))
        off = jax.tree.map(lambda a, b: float(jnp.linalg.norm(a - b)), found.state, exact.state)
        of_state.append(jax.tree.leaves(off))
        estimates.append(float(estimate))
    for values in (errors, estimates, *np.array(of_state).T):
        slopes = np.log2(np.array(values[:-1]) / np.array(values[1:]))
        assert np.all(np.abs(slopes - 2.0) < 0.3), values
    assert np.all(np.array(estimates) > 0.9 * np.array(errors))
    assert np.all(np.array(estimates) < 20.0 * np.array(errors))


def test_a_memory_that_forgets_at_once_leaves_heuns_scheme():
    rule, w, h = traced(GradientDescent(0.5, momentum=1e-8), "float64"), jnp.asarray(PARAMS), 0.2
    expected, grad = w, jax.grad(LOSS)(w)
    for _ in range(5):
        ahead = jax.grad(LOSS)(expected - h * 0.5 * grad)
        expected, grad = expected - h * 0.25 * (grad + ahead), ahead
    found = advance(rule, LOSS, w, 5, 1)[0].params
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7 * np.linalg.norm(expected - w))


@pytest.mark.parametrize("substeps", [8, 16, 32])
def test_the_error_is_small_where_a_memory_forgets_within_a_substep(substeps):
    """γ = 49: the order is not seen yet, but the error is small, and the estimate above it."""
    rule, w = traced(GradientDescent(0.5, momentum=0.02), "float64"), jnp.asarray(PARAMS)
    exact = advance(rule, LOSS, w, 2048, 3)[0].params
    found, estimate = advance(rule, LOSS, w, substeps, 3)
    error = np.linalg.norm(found.params - exact)
    assert error < 1e-3 * np.linalg.norm(exact - w)
    assert error < estimate < 100.0 * error


def test_far_nearer_than_euler_by_as_many_gradients():
    rule, w, one = traced(Adam(0.01, beta2=0.99), "float64"), jnp.asarray(PARAMS), jnp.ones(())
    exact, error = advance(rule, LOSS, w, 512, 10)[0].params, {}
    for scheme in ("euler", "chebyshev"):
        context = FlowContext(LOSS, rule, PairedOptions(stable_scheme=scheme, dtype="float64"), 1)

        @jax.jit
        def step(here, passed, context=context):
            grad = jax.grad(LOSS)(here.params)
            return stable.follow(context, here, grad, passed, 0.5 * one, one > 0)

        here, passed = begin(rule, LOSS, w)
        for _ in range(10):
            (here, passed, _), gradients = step(here, passed)
            assert gradients == 4
        error[scheme] = np.linalg.norm(here.params - exact)
    assert error["chebyshev"] < 0.1 * error["euler"]


def test_a_negative_second_moment_is_never_seen():
    """ν forgets at a rate beyond Heun's 2/h: it would overshoot g² = 1 and turn negative."""
    rule = traced(Adam(1e-3, beta2=0.02, eps=1e-3), "float64")
    w = jnp.ones(1)
    here = Place(w, rule.init(w)._replace(nu=jnp.array([1e-12])), jnp.ones(()))
    found = state_after(rule, here, jnp.ones(1), 0.5)
    assert np.all(np.asarray(found.state.nu) > 0)


class CoupledDecay(GradientDescent):
    """Heavy ball whose memory takes up a weight decay: dm/dt has + w/2."""

    def motion(self, t, params, state, seen, length):
        velocity, rate = super().motion(t, params, state, seen, length)
        return Motion(velocity, rate._replace(momentum=rate.momentum + 0.5 * params))


def test_a_state_that_the_parameters_enter_is_followed_to_second_order():
    rule, w, errors = traced(CoupledDecay(0.3, momentum=0.5), "float64"), jnp.asarray(PARAMS), []
    exact = advance(rule, LOSS, w, 512, 3)[0].params
    for substeps in (8, 16, 32):
        found = advance(rule, LOSS, w, substeps, 3)[0].params
        errors.append(np.linalg.norm(found - exact))
    assert np.all(np.abs(np.log2(np.array(errors[:-1]) / np.array(errors[1:])) - 2.0) < 0.2), errors
