"""The Chebyshev scheme: its polynomial, order, stability and estimate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial.chebyshev import Chebyshev

from cflows_ray import GradientDescent, RMSProp
from cflows_ray.flows.chebyshev import Steps, arrive, follow, num_stages
from cflows_ray.flows.integrators import Place
from cflows_ray.flows.trust import Passed
from cflows_ray.rules import RULES, Adam, ScalarRMSProp, traced
from tests.flows.stable_flow import LOSS, PARAMS, begin

STAGES = (2, 3, 4, 7, 13, 40)
RULES_WITHOUT_MOMENTUM = {
    "gradient descent": GradientDescent(0.5),
    "a schedule": GradientDescent(0.5, schedule="exponential:4:0.5", weight_decay=0.1),
    "rmsprop": RMSProp(0.01, beta2=0.9),
    "scalar rmsprop": ScalarRMSProp(0.1, beta2=0.9, bias_correction=True),
}


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def polynomial(stages):
    """Return P_s as Sommeijer, Shampine and Verwer write it, and its real stability interval."""
    T, w0 = Chebyshev.basis(stages), 1.0 + 2.0 / (13.0 * stages**2)
    first, second = T.deriv()(w0), T.deriv(2)(w0)
    b = second / first**2
    w1 = first / second
    return lambda z: 1.0 - b * T(w0) + b * T(w0 + w1 * z), (w0 + 1.0) / w1


@functools.partial(jax.jit, static_argnames="loss")
def advance(rule, loss, w, count, stages, steps):
    """Return w after so many optimizer steps, and the estimated error."""

    def step(_, carry):
        here, passed = carry
        grad = jax.grad(loss)(here.params)
        return follow(loss, rule, here, grad, passed, Steps(count, stages))[:2]

    here, passed = jax.lax.fori_loop(0, steps, step, begin(rule, loss, w))
    return here.params, arrive(passed, rule, here, jax.grad(loss)(here.params)).error


def decay(rates, w):
    return 0.5 * jnp.sum(rates * w**2)


@jax.jit
def decayed(rates, stages):
    """Return what one step of length 1 makes of w' = -λw from 1, for each λ, and its t."""
    rule = traced(GradientDescent(1.0), "float64")
    loss, w = functools.partial(decay, rates), jnp.ones_like(rates)
    here, passed = begin(rule, loss, w)
    steps = Steps(jnp.array(1), stages)
    place = follow(loss, rule, here, jax.grad(loss)(w), passed, steps).place
    return place.params, place.t - here.t


@pytest.mark.parametrize("stages", STAGES)
def test_a_step_is_the_stability_polynomial(stages):
    exact, interval = polynomial(stages)
    rates = np.linspace(-1.0, interval, 200)
    found, elapsed = decayed(jnp.asarray(rates), stages)
    np.testing.assert_allclose(found, exact(-rates), rtol=0, atol=1e-14 * stages**2)
    assert float(elapsed) == pytest.approx(1.0, abs=1e-14 * stages)


def test_as_many_stages_as_the_fastest_rate_needs():
    reaches = np.linspace(0.0, 300.0, 3000)
    found = np.asarray(num_stages(jnp.asarray(reaches)))
    for stages in np.unique(found):
        within, interval = polynomial(stages)
        served = reaches[found == stages]
        assert served.max() <= interval
        assert np.all(np.abs(within(-served)) <= 1.0)
        if stages > 2:
            assert served.min() > 0.98 * polynomial(stages - 1)[1]  # and no more stages than that
    assert int(num_stages(jnp.asarray(100.0))) == 13


def test_rates_at_the_limit_on_which_as_many_euler_substeps_explode():
    stages = num_stages(jnp.asarray(100.0))
    rates = jnp.linspace(0.0, 100.0, 500)
    found, _ = decayed(rates, stages)
    assert np.max(np.abs(found)) <= 1.0
    euler = (1.0 - rates / stages) ** stages
    assert np.max(np.abs(euler)) > 1e9


@pytest.mark.parametrize("rule", RULES_WITHOUT_MOMENTUM)
def test_order_two_and_an_estimate_of_the_error_a_few_times_too_large(rule):
    rule, w = traced(RULES_WITHOUT_MOMENTUM[rule], jnp.float64), jnp.asarray(PARAMS)
    exact, _ = advance(rule, LOSS, w, 256, 5, 3)
    errors, estimates = [], []
    for count in (4, 8, 16):
        found, estimate = advance(rule, LOSS, w, count, 4, 3)
        errors.append(float(np.linalg.norm(found - exact)))
        estimates.append(float(estimate))
        assert 0.9 * errors[-1] < estimate < 5.0 * errors[-1], count
    for values in (errors, estimates):
        slopes = np.log2(np.array(values[:-1]) / np.array(values[1:]))
        assert np.all(np.abs(slopes - 2.0) < 0.3), values


def test_a_negative_second_moment_is_never_seen():
    """The gradient vanishes within the step, and ν forgets at a rate that stages overshoot."""
    rule = traced(RMSProp(1e-3, beta2=0.25, eps=1e-3), "float64")
    loss, w = functools.partial(decay, jnp.array([1e-3, 1.0])), jnp.array([1.0, 1e-9])
    here = Place(w, rule.init(w)._replace(nu=jnp.array([1e-12, 1.0])), jnp.ones(()))
    steps = Steps(jnp.array(1), jnp.array(2))  # γ = 3, beyond the 1.96 of two stages
    moved = follow(loss, rule, here, jax.grad(loss)(w), Passed.begin(w, here.state), steps)
    assert np.all(np.asarray(moved.place.state.nu) > 0)
    assert np.all(np.isfinite(moved.place.params))


# Momentum -----------------------------------------------------------------------------------------


def test_which_rules_relax():
    t = jnp.ones(())
    assert all(rule.relaxes(t) for rule in RULES_WITHOUT_MOMENTUM.values())
    others = GradientDescent(0.1, momentum=0.9), RMSProp(0.01, momentum=0.5), Adam(0.01)
    assert not any(rule.relaxes(t) for rule in others)
    assert {"gradient_descent", "rmsprop", "adam"} <= set(RULES)


def test_an_inertial_flow_would_not_be_stable():
    """Heavy ball 0.9: its oscillation leaves the region however many stages the rate asks for."""
    beta = 0.9
    for share in (1.0, 2.0, 50.0):
        eigenvalue = share * (1.0 + beta)
        rate = [[0.0, -1.0], [eigenvalue / beta, -(1.0 - beta) / beta]]
        fast = np.linalg.eigvals(np.array(rate))
        stages = int(num_stages(jnp.asarray(1.25 * np.max(np.abs(fast)))))
        growth = np.max(np.abs(polynomial(stages)[0](fast)))
        assert growth > 1.0 > np.exp(np.max(fast.real)), share
