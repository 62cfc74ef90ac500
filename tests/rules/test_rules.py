"""Update rules: equal to optax's, flows that agree with the discrete state, clear errors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cflows_ray.rules import RULES, GradientDescent, RMSProp, ScalarRMSProp, parse_schedule
from cflows_ray.rules.base import RuleState

SCHEDULES = {
    "constant": lambda lr: optax.constant_schedule(lr),
    "linear_warmup:5": lambda lr: optax.linear_schedule(lr / 5, lr, 4),
    "cosine:9": lambda lr: optax.cosine_decay_schedule(lr, 9, alpha=0.01),
    "cosine:9:0.2": lambda lr: optax.cosine_decay_schedule(lr, 9, alpha=0.2),
}


def rounding(schedule):
    # optax evaluates its linear schedule in float32 even in 64-bit mode
    return 1e-7 if schedule.startswith("linear_warmup") else 1e-12


def loss(w):
    return jnp.sum(jnp.cos(w) * jnp.arange(1.0, 7.0)) + 0.1 * jnp.sum(w**4)


def ours(rule, steps):
    w = jnp.linspace(-1.0, 1.0, 6)
    state, path = rule.init(w), []
    for _ in range(steps):
        g = jax.grad(loss)(w)
        state = rule.update(state, g)
        w = w - g / rule.preconditioner(state)
        path.append(w)
    return np.array(path)


def theirs(transform, steps):
    w = jnp.linspace(-1.0, 1.0, 6)
    state, path = transform.init(w), []
    for _ in range(steps):
        updates, state = transform.update(jax.grad(loss)(w), state)
        w = optax.apply_updates(w, updates)
        path.append(w)
    return np.array(path)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_gradient_descent_is_optax_sgd(schedule):
    with jax.enable_x64(True):
        path = ours(GradientDescent(0.05, schedule), 15)
        np.testing.assert_allclose(
            path, theirs(optax.sgd(SCHEDULES[schedule](0.05)), 15), rtol=rounding(schedule)
        )


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("bias_correction", [False, True])
@pytest.mark.parametrize("eps", [1e-8, 1e-2])
def test_rmsprop_is_optax_scale_by_rms(schedule, bias_correction, eps):
    with jax.enable_x64(True):
        rule = RMSProp(0.02, 0.9, eps, bias_correction, schedule)
        transform = optax.chain(
            optax.scale_by_rms(0.9, eps, eps_in_sqrt=False, bias_correction=bias_correction),
            optax.scale_by_learning_rate(SCHEDULES[schedule](0.02)),
        )
        np.testing.assert_allclose(ours(rule, 15), theirs(transform, 15), rtol=rounding(schedule))


@pytest.mark.parametrize("bias_correction", [False, True])
def test_scalar_rmsprop_follows_its_formula(bias_correction):
    with jax.enable_x64(True):
        rule = ScalarRMSProp(0.1, 0.9, 1e-3, bias_correction)
        w, nu, path = np.linspace(-1.0, 1.0, 6), 0.0, []
        for t in range(1, 13):
            g = np.asarray(jax.grad(loss)(jnp.asarray(w)))
            nu = 0.9 * nu + 0.1 * float(g @ g)
            corrected = nu / (1 - 0.9**t) if bias_correction else nu
            w = w - 0.1 * g / (np.sqrt(corrected) + 1e-3)
            path.append(w)
        np.testing.assert_allclose(ours(rule, 12), path, rtol=1e-12)


def make(name, **changes):
    return RULES[name](**({"lr": 0.01} | changes))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
class TestContract:
    """What every rule must do."""

    def test_state_keeps_structure_and_dtype(self, name, dtype):
        with jax.enable_x64(dtype == "float64"):
            rule, w = make(name), jnp.ones(4, dtype)
            before = rule.init(w)
            after = rule.update(before, w)
            rate = rule.drift(after, w, w)
            for state in (after, rate):
                assert jax.tree.structure(state) == jax.tree.structure(before)
                for old, new in zip(*map(jax.tree.leaves, (before, state)), strict=True):
                    assert (old.shape, old.dtype) == (new.shape, new.dtype)
            assert rule.preconditioner(after).dtype == np.dtype(dtype)

    def test_time_advances_at_rate_one_and_nu_at_its_own(self, name, dtype):
        with jax.enable_x64(dtype == "float64"):
            rule, w = make(name), jnp.arange(1.0, 5.0, dtype=dtype)
            state = rule.update(rule.init(w), 0.5 * w)
            rate = rule.drift(state, w, jnp.zeros_like(w))
            assert float(rate.t) == 1.0
            if rate.nu is not None:
                # f = (U(s, g) - s) / β₂
                expected = (rule.update(state, w).nu - state.nu) / rule.beta2
                np.testing.assert_allclose(rate.nu, expected, rtol=100 * np.finfo(dtype).eps)

    def test_gradient_variance_enters_the_second_moment(self, name, dtype):
        with jax.enable_x64(dtype == "float64"):
            rule, w = (
                make(name, **({} if name == "gradient_descent" else {"beta2": 0.8})),
                jnp.ones(3, dtype),
            )
            variance = jnp.array([1.0, 2.0, 4.0], dtype)
            state = rule.update(rule.init(w), w)
            without = rule.drift(state, w, jnp.zeros_like(w)).nu
            with_variance = rule.drift(state, w, variance).nu
            expected = {"gradient_descent": None, "scalar_rmsprop": 7.0, "rmsprop": variance}[name]
            if expected is None:
                assert with_variance is None
            else:
                np.testing.assert_allclose(with_variance - without, 0.25 * expected, rtol=1e-5)

    def test_hyperparameters_are_traced(self, name, dtype):
        traces = []
        with jax.enable_x64(dtype == "float64"):

            @jax.jit
            def one_step(rule, w):
                traces.append(1)
                return w - w / rule.preconditioner(rule.update(rule.init(w), w))

            w = jnp.ones(3, dtype)
            results = [one_step(make(name, lr=lr), w) for lr in (0.1, 0.2, 0.4)]
        assert len(traces) == 1
        assert not np.allclose(results[0], results[1])

    def test_a_parameter_without_gradient_does_no_harm(self, name, dtype):
        with jax.enable_x64(dtype == "float64"):
            rule, g = make(name), jnp.array([1.0, 0.0], dtype)
            state = rule.update(rule.init(g), g)
            rate = rule.drift(state, g, jnp.zeros_like(g))
            tangent = jax.jvp(rule.preconditioner, (state,), (rate,))[1]
            assert np.all(np.isfinite(tangent))
            assert np.all(np.isfinite(g / rule.preconditioner(state)))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("lr", [-0.1, 0, float("nan"), float("inf"), "fast", None, True])
def test_bad_learning_rates_are_named(name, lr):
    with pytest.raises(ValueError, match=r"lr must be > 0, got "):
        make(name, lr=lr)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta2": 1.0}, "beta2 must be > 0 and < 1, got 1.0"),
        ({"beta2": "0.9"}, "beta2 must be > 0 and < 1, got '0.9'"),
        ({"eps": 0.0}, "eps must be > 0, got 0.0"),
        ({"bias_correction": 1}, "bias_correction must be True or False, got 1"),
        ({"schedule": "step:3"}, "schedule must be constant, linear_warmup:N or cosine:N"),
    ],
)
def test_bad_fields_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        RMSProp(**({"lr": 0.1} | changes))


@pytest.mark.parametrize(
    "text", ["", "linear_warmup", "cosine:0", "cosine:9:0", "cosine:x", "constant:1"]
)
def test_bad_schedules_are_named(text):
    with pytest.raises(ValueError, match="schedule must be"):
        parse_schedule(text)


def test_rules_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GradientDescent(0.1).lr = 0.2


def test_scheduled_learning_rate_uses_the_count_before_the_step():
    rule = GradientDescent(1.0, "linear_warmup:4")
    rates = [float(rule.learning_rate(RuleState(jnp.float32(t), None))) for t in (1, 2, 4, 9)]
    np.testing.assert_allclose(rates, [0.25, 0.5, 1.0, 1.0])
