"""A flow's estimate of its own error, against runs with many more substeps."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray import GradientDescent, PairedOptions, PairedRun, Problem
from cflows_ray.flows.integrators import INTEGRATORS, Place, euler_move
from cflows_ray.flows.trust import Passed
from cflows_ray.rules import Adam, Moments, RMSProp, traced
from tests.networks import NETWORKS

RULES = {
    "gradient descent": GradientDescent(0.5),
    "momentum": GradientDescent(0.1, momentum=0.9),
    "rmsprop": RMSProp(0.01, beta2=0.9),
    "adam": Adam(0.01, beta1=0.9, beta2=0.95),
}
ORDERS = {"euler": 1, "extrapolated": 2}
EDGE_STEPS = 40


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@functools.partial(jax.jit, static_argnames=("scheme", "loss"))
def follow(rule, scheme, loss, w, substeps, steps):
    """Return w after so many steps below the edge, and the estimated error."""
    integrator, grad = INTEGRATORS[scheme](), jax.grad(loss)
    one = jnp.ones(())
    begin = Place(w, rule.absorb(one, rule.init(w), grad(w)), one)
    length = 1.0 / substeps

    def substep(i, carry):
        here, kept, passed = carry
        seen, j = Moments.still(grad(here.params)), i % substeps
        passed = passed.arrive(rule, here, seen, integrator.is_whole(j))
        moves = [euler_move(rule, here, seen, n * length) for n in integrator.lengths]
        place, kept = integrator.combine(rule, j, tuple(m.place for m in moves), kept)
        velocity = integrator.velocity(j, tuple(m.velocity for m in moves))
        return place, kept, passed.leave(velocity, length)

    carry = begin, integrator.begin(begin), Passed.begin(w, begin.state)
    here, _, passed = jax.lax.fori_loop(0, steps * substeps, substep, carry)
    return here.params, passed.arrive(rule, here, Moments.still(grad(here.params))).error


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scheme", ORDERS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("network", ["tanh_regression", "gelu_classifier"])
def test_estimate_is_a_few_times_the_error_and_has_its_order(network, rule, scheme):
    loss, params = NETWORKS[network]()
    rule, params = traced(RULES[rule], jnp.float64), jnp.asarray(params)
    for steps in (3, 10, 30):
        exact, _ = follow(rule, "extrapolated", loss, params, 128, steps)
        estimates = []
        for substeps in (2, 4, 8, 16):
            found, estimate = follow(rule, scheme, loss, params, substeps, steps)
            error = np.linalg.norm(found - exact)
            assert 0.9 * error < estimate < 5.0 * error, (steps, substeps)
            estimates.append(float(estimate))
        shrunk = estimates[2] / estimates[3]
        assert np.log2(shrunk) == pytest.approx(ORDERS[scheme], abs=0.3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("decay", [5e-4, 1e-6])
@pytest.mark.parametrize("scheme", ORDERS)
def test_a_memory_that_forgets_within_a_substep_changes_the_estimate_little(scheme, decay):
    loss, params = NETWORKS["tanh_regression"]()
    without, short = (
        follow(traced(rule, jnp.float64), scheme, loss, jnp.asarray(params), 4, 30)
        for rule in (GradientDescent(0.5), GradientDescent(0.5 * (1 - decay), momentum=decay))
    )
    np.testing.assert_allclose(short[0], without[0], atol=20 * decay)
    assert short[1] == pytest.approx(float(without[1]), rel=200 * decay)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scheme", ORDERS)
def test_estimate_is_zero_where_integration_is_exact(scheme):
    def slope(w):
        return w @ jnp.array([1.0, -0.5])

    rule = traced(GradientDescent(0.5), jnp.float64)
    assert follow(rule, scheme, slope, jnp.array([1.0, 2.0]), 4, 10)[1] == 0.0


def flow_errors(flows, steps, **settings):
    """Return the last points, and columns flow_error by process, of a run that meets its edge."""
    loss, params = NETWORKS["tanh_regression"]()
    options = PairedOptions(flows=flows, dtype="float64", num_eigs=2, **settings)
    run = PairedRun(Problem(lambda w, _: loss(w)), GradientDescent(0.8), options)
    state = run.start(params, steps=steps, warmup=0, seed=0)
    state, rows = run.advance(state, steps)
    columns = {name: part.flow_error.to_numpy() for name, part in rows.groupby("process")}
    assert rows[rows.process == "central"].num_critical.iloc[-1] > 0
    return run.final(state), columns


@pytest.fixture(scope="module")
def finer():
    return flow_errors(("stable", "central"), EDGE_STEPS, scheme="extrapolated", substeps=64)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ORDERS)
def test_column_is_near_the_error_at_the_edge(finer, scheme):
    exact, small = finer
    found, column = flow_errors(
        ("stable", "central", "midpoint"), EDGE_STEPS, scheme=scheme, substeps=4
    )
    for flow in ("stable", "central"):
        error = np.linalg.norm(found[flow] - exact[flow])
        assert error < column[flow][-1] < 5.0 * error, flow
        assert small[flow][-1] < 0.2 * column[flow][-1]
        assert column[flow][0] == 0.0
        assert all(a < b for a, b in itertools.pairwise(column[flow]))
    for name in ("discrete", "midpoint"):
        assert np.all(np.isnan(column[name]))
