"""The adaptive scheme: its order, its estimate, its control, and the dense oracle of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray import GradientDescent, PairedOptions, PairedRun, Problem, run_paired
from cflows_ray.flows.adaptive import (
    PARTS,
    Past,
    Relaxation,
    ahead,
    arrive,
    choose,
    longest_stable,
    relaxation,
)
from cflows_ray.flows.exponential import forcing, phi
from cflows_ray.flows.integrators import Place
from cflows_ray.rules import Adam, Moments, RMSProp, traced
from tests.networks import NETWORKS
from tests.oracles import OracleRule, central_path
from tests.oracles.adaptive import adaptive_path
from tests.oracles.adaptive import phi as phi_by_quadrature

RULES = {
    "gradient descent": GradientDescent(0.5),
    "rmsprop": RMSProp(0.01, beta2=0.9),
    "adam": Adam(0.01, beta1=0.9, beta2=0.95),
    "a short memory": GradientDescent(0.5, momentum=0.02),
}
STEPS, EDGE_STEPS, LR = 10, 40, 0.8


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("order", [1, 2])
def test_phi_is_its_integral(order):
    z = np.array([-0.5, 0.0, 1e-9, 9.9e-3, 1.01e-2, 0.7, 2.0, 8.0])
    expected = phi_by_quadrature(order, z)
    np.testing.assert_allclose(phi(order, jnp.asarray(z)), expected, rtol=1e-9)


@functools.partial(jax.jit, static_argnames="loss")
def follow(rule, loss, w, tolerance, longest, steps=STEPS):
    """Return w after so many steps below the edge, the error estimated, the way, and substeps."""
    grad, one = jax.grad(loss), jnp.ones(())
    begin = Place(w, rule.absorb(one, rule.init(w), grad(w)), one)

    def look(here, past):
        g, H = grad(here.params), jax.hessian(loss)(here.params)
        Q = jnp.broadcast_to(rule.edge_preconditioner(here.t, here.state), w.shape)
        top = jnp.linalg.eigh(H / jnp.sqrt(jnp.outer(Q, Q)))[1][:, -2:].T
        U = top / jnp.sqrt(Q)
        K = relaxation(rule, here, g, U, U @ H, U * Q, jnp.ones(2, bool))
        motion = rule.motion(here.t, here.params, here.state, Moments.still(g), 0.0)
        rate = motion._replace(state=forcing(rule, here.state, motion.state))
        return rate, K, arrive(past, rate, K, tolerance, jnp.zeros(()))

    def substep(carry):
        here, past, position, way, count = carry
        rate, K, seen = look(here, past)
        size = choose(past, seen.ratio, position % PARTS, longest)
        h = size.astype(w.dtype) / PARTS
        place = ahead(rule, here, rate, seen, K, h)
        moved = place.params - here.params
        error = past.error + seen.error
        past = Past(error, rate, seen.slope, seen.course, moved, h, size, past.turning)
        return place, past, position + size, way + jnp.linalg.norm(moved), count + 1

    zero, none = jnp.zeros(()), jnp.zeros((), jnp.int32)
    carry = begin, Past.begin(w, begin.state, 1), none, zero, none
    carry = jax.lax.while_loop(lambda carry: carry[2] < PARTS * steps, substep, carry)
    here, past, _, way, count = carry
    return here.params, past.error + look(here, past)[2].error, way, count


@pytest.mark.parametrize("name", RULES)
def test_second_order_in_the_length_and_in_the_tolerance(name):
    loss, params = NETWORKS["gelu_classifier"]()
    rule, w = traced(RULES[name], jnp.float64), jnp.asarray(params)
    exact = follow(rule, loss, w, 1e9, 1 / 64)
    errors, estimates = [], []
    for longest in (1 / 8, 1 / 16, 1 / 32):
        found, estimate, _, count = follow(rule, loss, w, 1e9, longest)
        assert STEPS / longest <= count < STEPS / longest + 6
        errors.append(np.linalg.norm(found - exact[0]))
        estimates.append(float(estimate))
    # the reference has a sixteenth of the first one's error and a quarter of the last one's
    true = np.array(errors) * np.array([64, 16, 4]) / np.array([63, 15, 3])
    slopes = np.log2(true[:-1] / true[1:])
    assert np.all(np.abs(slopes - 2.0) < 0.3), slopes
    assert np.all(estimates > 0.5 * true)
    assert np.all(estimates < 10.0 * true)
    numbers = []
    for tolerance in (1e-1, 1e-2, 1e-3):
        found, estimate, way, count = follow(rule, loss, w, tolerance, 1.0)
        assert 1e-3 * tolerance * way < np.linalg.norm(found - exact[0]) < tolerance * way
        assert estimate < tolerance * way
        numbers.append(int(count))
    assert numbers[0] < numbers[1] < numbers[2]


def test_sizes_are_powers_of_two_that_never_cross_their_own_multiples():
    def size(last, ratio, position, longest=1.0):
        past = Past.begin(jnp.zeros(1), (), 1)._replace(
            size=jnp.asarray(last, jnp.int32), length=jnp.asarray(last / PARTS, jnp.float64)
        )
        found = choose(past, jnp.asarray(ratio), jnp.asarray(position), jnp.asarray(longest))
        return int(found)

    assert size(16, 0.9, 16) == 16
    assert size(16, 0.1, 32) == 32
    assert size(16, 0.1, 16) == 16  # 32 would end at 48
    assert size(16, 0.2, 32) == 16  # four times that is not far below 1
    assert size(16, 1.1, 32) == 8
    assert size(16, 17.0, 32) == 1 << 1
    assert size(16, 1e30, 32) == 1
    assert size(16, np.inf, 32) == 1
    assert size(16, np.nan, 32) == 16
    assert size(64, 0.0, 0) == 64
    assert size(64, 0.0, 0, longest=0.3) == 16
    assert size(1, 0.0, 0, longest=1e-9) == 1


@pytest.mark.parametrize(("beta2", "longest"), [(0.99, 1.0), (0.5, 0.5), (0.25, 1 / 6)])
def test_substeps_stay_below_what_the_second_moment_allows(beta2, longest):
    """Euler's stability ends at β₂/(1 - β₂); the rate of w is that of K here."""
    rule, one = traced(RMSProp(0.01, beta2=beta2), jnp.float64), jnp.ones(())
    relaxes = Relaxation(jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.ones(1))
    assert float(longest_stable(rule, one, one, relaxes)) == pytest.approx(longest)


def test_an_oscillation_of_the_filters_memory_dies_out():
    """Just below the edge, at 2 radians a step, it hardly does by itself with so much momentum."""
    rule = GradientDescent(0.1, momentum=0.99)
    curvatures = jnp.array([0.97, 0.6, 0.05]) * 2.0 * 1.99 / 0.1
    result = run_paired(
        lambda w: 0.5 * jnp.sum(curvatures * w**2), jnp.ones(3), rule, steps=300,
        flows=("central",), dtype="float64", num_eigs=2, progress=False,
    )  # fmt: skip
    flow = result.steps[result.steps.process == "central"]
    assert flow.doubt.isna().all()
    assert flow.train_loss.iloc[250:].max() < 0.3 * flow.train_loss.iloc[:50].max()


RULE = OracleRule("gradient_descent", LR)
NETWORK = NETWORKS["tanh_regression"]()


def test_second_order_across_the_onset():
    """Critical directions begin on the way; error of the dense scheme with substeps of a length."""
    exact = central_path(*NETWORK, RULE, EDGE_STEPS, 48, scheme="extrapolated")
    assert exact.num_critical[0] == 0
    assert exact.num_critical[-1] >= 1
    errors = []
    for parts in (64, 32, 16):
        path = adaptive_path(*NETWORK, RULE, EDGE_STEPS, np.inf, first=parts, longest=parts)
        assert np.allclose(path.lengths, parts / 64)
        errors.append(np.linalg.norm(path.params[-1] - exact.params[-1]))
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(slopes > 1.5), (slopes, errors)
    euler = central_path(*NETWORK, RULE, EDGE_STEPS, 4)  # as many evaluations as with 16 parts
    assert errors[-1] < 0.2 * np.linalg.norm(euler.params[-1] - exact.params[-1])


@pytest.mark.slow
def test_agrees_with_the_dense_oracle_and_resumes_exactly():
    loss, params = NETWORK
    # all pairs above 0.21 converge: the scheme's K is then the oracle's
    options = PairedOptions(
        flows=("central",), dtype="float64", scheme="adaptive", tolerance=1e9,
        num_eigs=8, tracking_threshold=0.2, near_threshold=0.21,
    )  # fmt: skip
    run = PairedRun(Problem(lambda w, _: loss(w)), GradientDescent(LR), options)
    state = run.start(params, steps=EDGE_STEPS, warmup=0, seed=0)
    whole, rows = run.advance(state, EDGE_STEPS + 1)
    rows = rows[rows.process == "central"].reset_index()
    path = adaptive_path(*NETWORK, RULE, EDGE_STEPS, 1e9, tracked=8)
    assert path.lengths[:8] == [1 / 64, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0]
    assert rows.status.eq("ok").all()
    assert rows.num_critical.tolist() == path.num_critical
    assert int(rows.num_gradients.iloc[-1]) == len(path.lengths) + 1
    for column, expected in {
        "train_loss": path.loss,
        "train_loss_predicted": path.predicted,
        "effective_sharpness": path.sharpness,
    }.items():
        np.testing.assert_allclose(rows[column], expected, rtol=1e-5, err_msg=column)
    np.testing.assert_allclose(rows.flow_error.iloc[-1], sum(path.errors), rtol=1e-4)
    gap = np.linalg.norm(run.final(whole)["central"] - path.params[-1])
    assert gap <= 1e-5 * np.linalg.norm(path.params[-1] - path.params[0])
    parts = run.advance(state, 7)[0]
    parts = run.advance(parts, EDGE_STEPS + 1)[0]
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
