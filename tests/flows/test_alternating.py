"""The alternating flows: unit step, dense oracles, rates, orders, loops, seeds, reach."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray import GradientDescent, RMSProp, ScalarRMSProp, run_paired
from cflows_ray.flows import FLOWS, Ask, FlowContext, FlowOptions, Reference, Start
from cflows_ray.flows.alternating import AlternatingState
from cflows_ray.flows.mean_and_swing import Split, Whole, add, begin_split, split_rate
from cflows_ray.rules import RULES, Adam
from tests.networks import NETWORKS
from tests.oracles_rivals import (
    Rule,
    alternating_rate,
    integrate,
    start_alternating,
    warmed,
)
from tests.oracles_rivals_others import valley_2d, valley_start

STEPS, WARMUP = 40, 5


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def optimizer(loss, rule, params, steps):
    """Return whole states x_0 .. x_steps, and the states that have absorbed the gradient."""
    x, path, absorbed = Whole(params, rule.init(params)), [], []
    advance = jax.jit(lambda t, x: _advance(loss, rule, t, x))
    for i in range(steps + 1):
        path.append(x)
        x, state = advance(jnp.full((), i + 1.0, params.dtype), x)
        absorbed.append(state)
    return path, absorbed


def _advance(loss, rule, t, x):
    grad = jax.grad(loss)(x.params)
    state = rule.absorb(t, x.state, grad)
    return Whole(rule.step(t, x.params, state, grad), state), state


def started(loss, rule, path, absorbed, at):
    """Return context and split at a step of the optimizer's path."""
    context = FlowContext(loss, rule, FlowOptions(dtype="float64"), 2)
    start = Start(
        t=jnp.full((), at + 1.0),
        previous=path[at - 1].params,
        previous_state=path[at - 1].state,
        has_previous=jnp.asarray(at > 0),
        params=path[at].params,
        rule_state=path[at].state,
        absorbed=absorbed[at],
        basis=jnp.ones((2, path[at].params.size)),
    )
    return context, start, begin_split(context, start, jax.grad(loss)(start.params))


EXTRA = {
    "heavy_ball": GradientDescent(0.3, momentum=0.9),
    "nesterov": GradientDescent(0.3, momentum=0.9, nesterov=True, weight_decay=0.01),
    "rmsprop_momentum": RMSProp(0.01, beta2=0.9, momentum=0.5),
    "scheduled": GradientDescent(0.8, schedule="linear_warmup:10"),
    "corrected_rmsprop": RMSProp(0.02, beta2=0.9, bias_correction=True),
}


def rule_named(name):
    return EXTRA[name] if name in EXTRA else RULES[name](lr=0.7 if "descent" in name else 0.02)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", [*RULES, *EXTRA])
@pytest.mark.parametrize("at", [0, 3])
def test_the_unit_step_of_the_first_order_is_the_optimizer(name, at):
    """Euler with h = 1 on order 1, from any split: parameters and state, every registered rule."""
    loss, w = NETWORKS["tanh_regression"]()
    rule, steps = rule_named(name), 25
    path, absorbed = optimizer(loss, rule, jnp.asarray(w), at + steps)
    context, _, z = started(loss, rule, path, absorbed, at)
    # a split that the optimizer never chose
    shift = Whole(0.01 * jnp.cos(jnp.arange(w.size)), jax.tree.map(jnp.zeros_like, z.swing.state))
    z = Split(add(z.mean, shift, -1.0), add(z.swing, shift))
    step = jax.jit(lambda t, z: add(z, split_rate(context, t, z, 1, jnp.ones(()))[0]))
    for i in range(steps):
        z = step(jnp.full((), at + i + 1.0), z)
    iterate = add(z.mean, z.swing, (-1.0) ** steps)
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10),
        iterate,
        path[at + steps],
    )


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("order", "slope"), [(1, 2), (2, 3)])
def test_the_time_one_map_is_the_optimizer_to_the_order(order, slope):
    """Without a swing, smaller steps: the error of one step falls as G² and as G³."""
    loss, w = NETWORKS["tanh_regression"]()
    errors = []
    for lr in (0.04, 0.02, 0.01):
        rule, w0 = GradientDescent(lr), jnp.asarray(w)
        context = FlowContext(loss, rule, FlowOptions(dtype="float64"), 2)
        rate = lambda z, c=context: split_rate(c, jnp.ones(()), z, order, jnp.ones(()))[0]  # noqa: E731
        state = rule.init(w0)
        z = Split(Whole(w0, state), Whole(jnp.zeros_like(w0), state))
        z = _rk4(rate, z, 8)
        exact = w0 - lr * jax.grad(loss)(w0)
        errors.append(float(jnp.linalg.norm(z.mean.params - exact)))
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(slopes - slope) < 0.1), slopes


def _rk4(rate, z, substeps):
    h = 1.0 / substeps

    @jax.jit
    def advance(z):
        k1 = rate(z)
        k2 = rate(add(z, k1, h / 2))
        k3 = rate(add(z, k2, h / 2))
        k4 = rate(add(z, k3, h))
        for k, weight in ((k1, 1), (k2, 2), (k3, 2), (k4, 1)):
            z = add(z, k, weight * h / 6)
        return z

    for _ in range(substeps):
        z = advance(z)
    return z


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("s", [0.5, 1.9, 2.4])
def test_rates_on_a_quadratic(s):
    """Centre -s and -(s + s²/2); swing s - 2 and (s - 2) - (s - 2)²/2."""
    context = FlowContext(
        lambda w: 0.5 * s * w[0] ** 2, GradientDescent(1.0), FlowOptions(dtype="float64"), 1
    )
    state = context.rule.init(jnp.ones(1))
    z = Split(Whole(jnp.full(1, 2.0), state), Whole(jnp.full(1, 3.0), state))
    for order, centre, swing in (
        (1, -s, s - 2),
        (2, -(s + s**2 / 2), (s - 2) - (s - 2) ** 2 / 2),
    ):
        rate, seen = split_rate(context, jnp.ones(()), z, order, jnp.ones(()))
        assert float(rate.mean.params[0]) == pytest.approx(2 * centre)
        assert float(rate.swing.params[0]) == pytest.approx(3 * swing)
        assert float(seen.curvature) / 9 == pytest.approx(s)
        assert float(seen.loss) == pytest.approx(0.5 * s * 13)


AGREEMENT = [
    ("tanh_regression", "gradient_descent", 0.8),
    ("tanh_regression", "rmsprop", 0.01),
    ("deep_linear", "rmsprop", 0.01),
    ("gelu_classifier", "scalar_rmsprop", 0.1),
    ("tanh_regression", "heavy_ball", 0.5),
    ("tanh_regression", "adam", 0.02),
]


def our_rule(kind, lr):
    if kind == "gradient_descent":
        return GradientDescent(lr)
    if kind == "heavy_ball":
        return GradientDescent(lr, momentum=0.5)
    if kind == "adam":
        return Adam(lr, beta1=0.5, beta2=0.95)
    return {"rmsprop": RMSProp, "scalar_rmsprop": ScalarRMSProp}[kind](lr, beta2=0.95)


@pytest.mark.parametrize(("network", "kind", "lr"), AGREEMENT)
def test_both_orders_agree_with_the_dense_oracle(network, kind, lr):
    # as long as the oracle's substeps, never more than four, would do: until s passes 2.8
    steps = 30 if kind == "adam" else STEPS
    loss, w = NETWORKS[network]()
    result = run_paired(
        loss, w, our_rule(kind, lr), steps=steps, warmup=WARMUP, dtype="float64",
        flows=("alternating", "edge"),
    )  # fmt: skip
    rule = Rule(kind, lr, beta1=0.5, beta2=0.95)
    with jax.enable_x64(True):
        before, here = warmed(loss, w, rule, WARMUP)
        z = start_alternating(loss, rule, before, here, threshold=None)
        for name, order, substeps in (("alternating", 2, 4), ("edge", 1, 2)):
            rate, flat, back = alternating_rate(loss, rule, z, order)
            end = back(jnp.asarray(integrate(rate, flat, steps, substeps, "heun")[-1]))
            gap = np.linalg.norm(result.final[name] - end.mean.w)
            assert gap < 1e-6 * np.linalg.norm(end.mean.w - w), name
            row = result.steps[result.steps.process == name].iloc[-1]
            swing = float(jnp.vdot(end.swing.w, end.swing.w))
            assert row.sigma_trace == pytest.approx(swing, rel=1e-3, abs=1e-12)
            assert row.status == "ok"


def test_the_second_order_follows_the_iterates_ten_times_nearer_than_the_first():
    loss, w = NETWORKS["tanh_regression"]()
    result = run_paired(
        loss, w, RMSProp(0.01, beta2=0.95), steps=60, warmup=WARMUP, dtype="float64",
        flows=("alternating", "edge", "stable"),
    )  # fmt: skip
    last = result.steps[result.steps.step == 60].set_index("process")
    assert last.sigma_trace["alternating"] > 1e-5  # it is at the edge
    assert last.iterate_distance["alternating"] < 0.1 * last.iterate_distance["edge"]
    distance = last.distance_to_midpoint
    assert distance["alternating"] < 0.1 * distance["edge"] < 0.1 * distance["stable"]


# Through the process itself: loops, seeds, reach -------------------------------------------------


def follow(name, loss, rule, state, steps, dtype):
    """Return the states of a process alone, stacked; the reference is a point that never moves."""
    context = FlowContext(loss, rule, FlowOptions(dtype=dtype), 1)
    w = state.split.mean.params
    reference = Reference(
        t=jnp.ones((), dtype), params=w, previous=w, following=w, has_previous=jnp.asarray(True),
        linear=None, state=rule.init(w), has_spiked=jnp.asarray(False),
    )  # fmt: skip
    ask = Ask(is_last=jnp.asarray(False), wanted=jnp.asarray(False))

    def body(state, _):
        step = FLOWS[name].step(context, state, reference, ask)
        return step.state, state

    return jax.jit(lambda s: jax.lax.scan(body, s, None, steps))(state)[1]


def state_of(rule, c, v, sign=1.0):
    empty = rule.init(c)
    split = Split(Whole(c, empty), Whole(v, empty))
    return AlternatingState(split, jnp.full((), sign, c.dtype), jnp.ones((), c.dtype), c)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "drift"), [("alternating", 1.19), ("edge", -0.81)])
def test_drift_of_the_loop_energy_in_the_valley(name, drift):
    """ΔE / (η² ε Σ y₁²) = 2 - 9ζ² for order 2, -9ζ² for order 1 (Berthier; ζ = 0.3)."""
    zeta, eps, lr, loops = 0.3, 1e-3, 0.3, 2
    w = jnp.asarray(valley_start(eps, lr, 0.5))
    x = lr / 2 * (eps - 1.5 * zeta * w[0] ** 2)
    rule = GradientDescent(lr)
    state = state_of(rule, jnp.array([x, w[1]]), jnp.array([w[0], lr * w[0] * x / 2]))
    steps = int(1.5 * loops * 2 * np.pi / (lr * np.sqrt(2 * eps))) + 50
    path = follow(name, valley_2d(zeta, eps), rule, state, steps, "float64").split
    y = (np.asarray(path.mean.params)[:, 1] - 2 / lr) / np.sqrt(eps)
    log_a2 = np.log(np.asarray(path.swing.params)[:, 0] ** 2 / eps)
    k = np.nonzero((y[:-1] <= 0) & (y[1:] > 0))[0][: loops + 1]
    assert len(k) == loops + 1
    part = -y[k] / (y[k + 1] - y[k])
    at = log_a2[k] + part * (log_a2[k + 1] - log_a2[k])
    energy = np.exp(at) / 4 - at / 2
    sums = np.concatenate([[0.0], np.cumsum(y**2)])[k] + part * y[k] ** 2
    got = (energy[-1] - energy[0]) / (lr**2 * eps * (sums[-1] - sums[0]))
    assert got == pytest.approx(drift, abs=0.02)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_swing_below_rounding_grows_past_the_edge(dtype):
    """By the rate of the theory, though c ± v is c there: differences reach."""
    s = 2.2
    with jax.enable_x64(True):
        rule = GradientDescent(1.0)
        c = jnp.array([0.0, 3.0], dtype)
        loss = lambda w: 0.5 * s * (w[1] - 3.0) ** 2 + 0.0 * w[0]  # noqa: E731
        tiny = 1e-2 * float(jnp.finfo(dtype).eps)
        state = state_of(rule, c, jnp.array([0.0, tiny], dtype))
        # reach is known from the second step on
        path = follow("alternating", loss, rule, state, 20, dtype).split.swing.params[:, 1]
    growth = np.diff(np.log(np.asarray(path, np.float64)))[-5:]
    np.testing.assert_allclose(growth, 0.2 - 0.2**2 / 2, rtol=2e-2)


def test_below_the_edge_rounding_holds_the_swing_up():
    """Fed by σ² a step and damped by 2 - s, its square comes to σ² / (1 - e^{-2 rate})."""
    with jax.enable_x64(True):
        rule, s = GradientDescent(1.0), 1.8
        loss = lambda w: 0.5 * s * (w[0] - 3.0) ** 2  # noqa: E731
        state = state_of(rule, jnp.full(1, 3.0), jnp.full(1, 1e-3))
        path = follow("alternating", loss, rule, state, 200, "float64").split.swing.params[:, 0]
        rate = 0.2 + 0.2**2 / 2
        sigma = 2.0 * 2.0 * np.finfo(np.float64).eps / np.sqrt(12)
        expected = sigma / np.sqrt(1 - np.exp(-2 * rate))
        assert float(path[-1]) == pytest.approx(expected, rel=1e-2)
        # without a swing to scale there is nothing to feed
        state = state_of(rule, jnp.full(1, 3.0), jnp.zeros(1))
        path = follow("alternating", loss, rule, state, 5, "float64").split.swing.params
        assert not np.any(np.asarray(path))
