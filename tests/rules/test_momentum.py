"""Rules with momentum and weight decay: equal to optax's over 200 steps, and their edges."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cflows_ray.rules import (
    Adam,
    AdamW,
    GradientDescent,
    Moments,
    NAdam,
    RMSProp,
    ScalarAdam,
    ScalarRMSProp,
)
from tests.oracles import optimizers

STEPS = 200
CURVATURES = jnp.arange(1.0, 7.0)


def in_float64(schedule):
    """Evaluate an optax schedule in float64: of an integer count it makes float32."""
    return lambda count: schedule(count.astype("float64"))


SCHEDULES = {
    "constant": optax.constant_schedule,
    "linear_warmup:20+cosine:130": lambda lr: in_float64(
        optax.join_schedules(
            [optax.linear_schedule(lr / 20, lr, 19), optax.cosine_decay_schedule(lr, 130, 0.01)],
            [20],
        )
    ),
}
ROUNDED_TO = {"float64": {"rtol": 1e-10, "atol": 1e-12}, "float32": {"atol": 5e-5}}


def loss(w):
    return jnp.sum(jnp.cos(w) * CURVATURES.astype(w.dtype)) + 0.1 * jnp.sum(w**4)


def sgd(momentum, nesterov):
    return lambda lr: optax.sgd(lr, momentum=momentum, nesterov=nesterov)


def decayed(transform, weight_decay):
    """Decoupled decay for any rule: what is added before the learning rate multiplies."""
    return lambda lr: optax.chain(
        transform, optax.add_decayed_weights(weight_decay), optax.scale_by_learning_rate(lr)
    )


def rmsprop(lr):
    return optax.rmsprop(lr, decay=0.9, eps=1e-8, eps_in_sqrt=False, momentum=0.9)


# our rule, optax's transformation of a learning rate, learning rate
PAIRS = {
    "heavy ball 0.5": (lambda lr, s: GradientDescent(lr, s, momentum=0.5), sgd(0.5, False), 0.05),
    "heavy ball 0.9": (lambda lr, s: GradientDescent(lr, s, momentum=0.9), sgd(0.9, False), 0.01),
    "nesterov": (
        lambda lr, s: GradientDescent(lr, s, momentum=0.9, nesterov=True),
        sgd(0.9, True),
        0.01,
    ),
    "rmsprop with momentum": (
        lambda lr, s: RMSProp(lr, 0.9, schedule=s, momentum=0.9),
        rmsprop,
        0.002,
    ),
    "adam": (lambda lr, s: Adam(lr, schedule=s), optax.adam, 0.02),
    "adamw": (
        lambda lr, s: AdamW(lr, schedule=s, weight_decay=0.1),
        lambda lr: optax.adamw(lr, weight_decay=0.1),
        0.02,
    ),
    "nadam": (lambda lr, s: NAdam(lr, schedule=s), optax.nadam, 0.02),
    "gradient descent with decay": (
        lambda lr, s: GradientDescent(lr, s, weight_decay=0.1),
        decayed(optax.identity(), 0.1),
        0.05,
    ),
    "heavy ball with decay": (
        lambda lr, s: GradientDescent(lr, s, momentum=0.5, weight_decay=0.1),
        decayed(optax.trace(0.5), 0.1),
        0.05,
    ),
}


def ours(rule, dtype):
    def step(carry, i):
        w, state = carry
        t, g = (i + 1).astype(dtype), jax.grad(loss)(w)
        state = rule.absorb(t, state, g)
        w = rule.step(t, w, state, g)
        return (w, state), w

    w = jnp.linspace(-1.0, 1.0, 6).astype(dtype)
    return np.array(jax.lax.scan(step, (w, rule.init(w)), jnp.arange(STEPS))[1])


def theirs(transform, dtype):
    def step(carry, _):
        w, state = carry
        updates, state = transform.update(jax.grad(loss)(w), state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    w = jnp.linspace(-1.0, 1.0, 6).astype(dtype)
    return np.array(jax.lax.scan(step, (w, transform.init(w)), None, length=STEPS)[1])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", PAIRS)
def test_the_trajectory_is_optaxs(name, schedule):
    make, transform, lr = PAIRS[name]
    with jax.enable_x64(True):
        path = ours(make(lr, schedule), "float64")
        expected = theirs(transform(SCHEDULES[schedule](lr)), "float64")
        np.testing.assert_allclose(path, expected, **ROUNDED_TO["float64"])


@pytest.mark.parametrize("dtype", ROUNDED_TO)
@pytest.mark.parametrize("name", PAIRS)
def test_the_trajectory_with_optaxs_own_schedule_is_optaxs(name, dtype):
    """A function of the step; numbers to the rounding of the dtype.

    (In float32 optax's own 1 - β₂ᵗ keeps four digits of the first steps.)
    """
    make, transform, lr = PAIRS[name]
    with jax.enable_x64(dtype == "float64"):
        # begins at 0, as many do: the first step is none
        one = optax.warmup_cosine_decay_schedule(0.0, 1.0, 20, 150, 0.1)
        path = ours(make(lr, one), dtype)
        their = theirs(transform(lambda count: lr * one(count.astype(dtype))), dtype)
        np.testing.assert_allclose(path, their, **ROUNDED_TO[dtype])


def test_scalar_adam_follows_its_formula():
    with jax.enable_x64(True):
        grad = jax.jit(jax.grad(loss))
        expected = optimizers.adam(
            lambda w: np.asarray(grad(jnp.asarray(w))),
            np.linspace(-1.0, 1.0, 6),
            STEPS,
            0.02,
            beta1=0.9,
            beta2=0.999,
            scalar=True,
        )
        np.testing.assert_allclose(ours(ScalarAdam(0.02), "float64"), expected[1:], rtol=1e-10)


# The edge ------------------------------------------------------------------------------------

LATE = 1e6  # when bias corrections have died out
EDGES = {
    "heavy ball": (lambda lr: GradientDescent(lr, momentum=0.5), 2 * 1.5),
    "nesterov": (lambda lr: GradientDescent(lr, momentum=0.9, nesterov=True), 2 * 1.9 / 2.8),
    "decay": (lambda lr: GradientDescent(lr, weight_decay=0.1), 2 - 0.1 * 0.2),
    "rmsprop": (lambda lr: RMSProp(lr, beta2=1 - 1e-14, momentum=0.9), 2 * 1.9),
    "adam": (lambda lr: Adam(lr), 38.0),
    "adamw": (lambda lr: AdamW(lr, weight_decay=0.1), (2 - 0.1 * 0.2) * 19),
    "nadam": (lambda lr: NAdam(lr), 38.0 / 2.8),
    "scalar adam": (lambda lr: ScalarAdam(lr, beta1=0.8), 18.0),
}


@pytest.mark.parametrize("name", EDGES)
def test_the_edge_of_a_quadratic(name):
    """Just below τ the optimizer contracts on ½λx², just above it grows: seen, not derived.

    The second moment is held (β₂ near 1 and far from the start), so that P is constant.
    """
    make, tau = EDGES[name]
    with jax.enable_x64(True):
        rule, t = make(0.2), jnp.asarray(LATE)
        held = rule.init(jnp.ones(1))
        held = held._replace(nu=None if held.nu is None else jnp.ones_like(held.nu))
        edge = rule.edge_preconditioner(t, held)
        plain = rule.preconditioner(t, held.nu)
        np.testing.assert_allclose(2.0 * edge, tau * plain, rtol=1e-6)

        def growth(factor):
            curvature = factor * 2.0 * edge

            def step(carry, _):
                x, state = carry
                g = curvature * x
                state = rule.absorb(t, state, g)._replace(nu=held.nu)
                return (rule.step(t, x, state, g), state), x

            x = jnp.ones(1)
            path = jax.lax.scan(step, (x, held), None, length=4000)[1]
            return float(jnp.max(jnp.abs(path[-10:])))

        assert growth(0.999) < 1e-1
        assert growth(1.001) > 1e1


@pytest.mark.parametrize("kind", [GradientDescent, RMSProp, ScalarRMSProp])
def test_a_small_momentum_is_nearly_none(kind):
    """β → 0: step and motion are those of the rule without momentum."""
    with jax.enable_x64(True):
        g, t = jnp.array([1.0, -2.0, 3.0]), jnp.asarray(3.0)
        moments = Moments(g, 0.1 * g, g**2)
        moved = []
        for momentum in (0.0, 1e-9):
            rule = kind(0.1, momentum=momentum)
            state = rule.absorb(t, rule.init(g), g)
            rate = rule.motion(t, g, state, moments, 0.25)
            moved.append(jnp.stack([rule.step(t, g, state, g), rate.params]))
        np.testing.assert_allclose(moved[0], moved[1], rtol=1e-7)


def test_no_weight_decay_is_adam():
    with jax.enable_x64(True):
        path = ours(AdamW(0.02, weight_decay=0.0), "float64")
        assert np.array_equal(path, ours(Adam(0.02), "float64"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradientDescent(0.1, momentum=1.0), "momentum must be >= 0 and < 1, got 1.0"),
        (lambda: GradientDescent(0.1, momentum=-0.1), "momentum must be >= 0 and < 1, got -0.1"),
        (lambda: GradientDescent(0.1, nesterov=True), "nesterov must be False without momentum"),
        (lambda: Adam(0.1, beta1=0.0), "beta1 must be > 0 and < 1, got 0.0"),
        (lambda: AdamW(0.1, weight_decay=-1), "weight_decay must be >= 0, got -1"),
    ],
)
def test_bad_fields_are_named(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
