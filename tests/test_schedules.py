"""Schedules: optax's factors, at real t as well; texts and functions; numbers are arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cflows_ray import Adam, GradientDescent, PairedOptions, PairedRun, Problem
from cflows_ray.checks import ConfigError
from cflows_ray.rules import traced
from cflows_ray.schedules import LEAST_FACTOR, factor, parse_schedule
from cflows_ray.sweep import RunConfig

STEPS = 200


def warm(decay):
    return optax.join_schedules([optax.linear_schedule(1 / 7, 1.0, 6), decay], [7])


# ours, optax's, and where the factor jumps
SCHEDULES = {
    "constant": (optax.constant_schedule(1.0), ()),
    "linear_warmup:7": (optax.linear_schedule(1 / 7, 1.0, 6), ()),
    "linear_warmup:1": (optax.constant_schedule(1.0), ()),
    "linear:90": (optax.linear_schedule(1.0, 0.01, 90), ()),
    "linear:90:0.5": (optax.linear_schedule(1.0, 0.5, 90), ()),
    "cosine:90": (optax.cosine_decay_schedule(1.0, 90, 0.01), ()),
    "cosine:90:0.2": (optax.cosine_decay_schedule(1.0, 90, 0.2), ()),
    "step:90": (optax.exponential_decay(1.0, 90, 0.1, staircase=True), (90, 180)),
    "step:60:0.5": (optax.exponential_decay(1.0, 60, 0.5, staircase=True), (60, 120, 180)),
    "exponential:90": (optax.exponential_decay(1.0, 90, 0.1), ()),
    "exponential:30:0.7": (optax.exponential_decay(1.0, 30, 0.7), ()),
    "linear_warmup:7+linear:90:0.2": (warm(optax.linear_schedule(1.0, 0.2, 90)), ()),
    "linear_warmup:7+cosine:90": (warm(optax.cosine_decay_schedule(1.0, 90, 0.01)), ()),
    "linear_warmup:7+exponential:90": (warm(optax.exponential_decay(1.0, 90, 0.1)), ()),
    "linear_warmup:7+step:60": (
        warm(optax.exponential_decay(1.0, 60, 0.1, staircase=True)),
        (67, 127, 187),
    ),
}


@pytest.mark.parametrize("text", SCHEDULES)
def test_factors_are_optaxs(text):
    theirs, _ = SCHEDULES[text]
    with jax.enable_x64(True):
        t = jnp.arange(STEPS, dtype="float64")
        expected = jax.vmap(lambda s: jnp.asarray(theirs(s), "float64"))(t)
        np.testing.assert_allclose(jax.vmap(parse_schedule(text).factor)(t), expected, rtol=1e-14)


@pytest.mark.parametrize("text", SCHEDULES)
def test_between_steps_a_factor_is_continuous_but_where_it_steps(text):
    _, jumps = SCHEDULES[text]
    with jax.enable_x64(True):
        t = jnp.arange(0.0, STEPS, 1 / 64)
        found = np.asarray(jax.vmap(parse_schedule(text).factor)(t))
    moved = np.abs(np.diff(found))
    assert sorted(np.asarray(t)[1:][moved > 0.05 * found[:-1]]) == list(jumps)
    assert np.all(found > 0)


def test_no_factor_is_zero():
    t = jnp.asarray(1e6)
    assert float(factor("exponential:10", t)) == pytest.approx(LEAST_FACTOR)
    assert float(factor(lambda t: 0.0 * t, t)) == pytest.approx(LEAST_FACTOR)
    assert float(factor(optax.constant_schedule(1.0), t)) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "", "constant:1", "constant+cosine:9", "linear_warmup", "linear_warmup:5:0.1", "linear:0",
        "linear_warmup:5+", "+cosine:9", "cosine:9+linear_warmup:5", "cosine:9+step:9", "step",
        "linear_warmup:5+linear_warmup:5", "linear_warmup:5+constant", "cosine:9:0", "cosine:x",
        "exponential:9:1.1", "step:9:nan", "step:9:0.5:2", "cosine:-9", "Cosine:9", 3, None,
    ],
)  # fmt: skip
def test_bad_schedules_are_named(text):
    with pytest.raises(ConfigError, match=r"^schedule must be constant, linear_warmup:N, a decay "):
        parse_schedule(text)


def test_numbers_of_a_schedule_are_arguments_of_the_program():
    traces = []
    with jax.enable_x64(True):

        @jax.jit
        def rate(rule, t):
            traces.append(1)
            return rule.learning_rate(t)

        texts = ("linear_warmup:4+cosine:9", "linear_warmup:8+cosine:9:0.5")
        rates = [rate(traced(Adam(0.3, schedule=s), "float64"), jnp.asarray(3.0)) for s in texts]
        expected = [Adam(0.3, schedule=s).learning_rate(jnp.asarray(3.0)) for s in texts]
    assert len(traces) == 1
    np.testing.assert_allclose(rates, expected, rtol=1e-14)
    np.testing.assert_allclose(rates, [0.225, 0.1125], rtol=1e-14)


def run_of(schedule):
    problem = Problem(lambda w, _: 0.5 * jnp.sum(w**2))
    return PairedRun(problem, GradientDescent(0.5, schedule), PairedOptions(flows=("stable",)))


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (lambda t: 1.0 - t / 8, "schedule must be finite and >= 0, got -0.125 at step 9"),
        (lambda t: 1.0 / t, "schedule must be finite and >= 0, got inf at step 0"),
        (lambda t: jnp.stack([t, t]), r"schedule must return a number, got an array of \(2,\)"),
    ],
)
def test_a_function_that_is_no_schedule_is_refused_before_anything_compiles(schedule, message):
    run = run_of(schedule)
    with pytest.raises(ConfigError, match=f"^{message}$"):
        run.start(jnp.ones(2), steps=10, warmup=1, seed=0)
    with pytest.raises(RuntimeError):
        _ = run.program


def test_a_flow_sees_of_a_function_what_it_sees_of_the_same_text():
    rules = [GradientDescent(0.3, "cosine:10"), GradientDescent(0.3, SCALE)]
    with jax.enable_x64(True):
        t, one = jnp.asarray(4.3), jnp.ones(())
        seen = [
            jax.jvp(lambda t, r=r: r.edge_preconditioner(t, r.init(t)), (t,), (one,)) for r in rules
        ]
    np.testing.assert_allclose(*seen, rtol=1e-12)
    assert float(seen[0][1]) > 0.1  # P rises as the rate falls


SCALE = optax.cosine_decay_schedule(1.0, 10, 0.01)


def test_a_run_with_a_function():
    run = run_of(SCALE)
    state = run.start(jnp.ones(2), steps=10, warmup=1, seed=0)
    state, rows = run.advance(state, 10)
    final = run.final(state)
    steps = [1.0 - 0.5 * float(SCALE(k)) for k in range(11)]
    np.testing.assert_allclose(final["discrete"], np.prod(steps), rtol=1e-5)
    times = np.linspace(1.0, 11.0, 1001)
    fallen = np.exp(-np.trapezoid(0.5 * np.asarray(SCALE(times)), times))
    np.testing.assert_allclose(final["stable"], 0.5 * fallen, rtol=0.04)
    assert rows.status.eq("ok").all()


def test_a_function_has_no_place_in_a_sweep():
    with pytest.raises(ConfigError, match=r"^schedule must be a text in a sweep, got <function"):
        RunConfig("saddle_2d", "gradient_descent", 0.1, schedule=optax.constant_schedule(1.0))
    text = "linear_warmup:10+step:5:0.5"
    assert RunConfig("saddle_2d", "adam", 0.1, schedule=text).to_json()["schedule"] == text
