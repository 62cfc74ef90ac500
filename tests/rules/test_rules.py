"""Update rules: equal to optax's, flows that agree with the discrete state, clear errors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cflows_ray.rules import RULES, GradientDescent, Moments, RMSProp, ScalarRMSProp, traced

SCHEDULES = {
    "constant": lambda lr: optax.constant_schedule(lr),
    "linear_warmup:5": lambda lr: optax.linear_schedule(lr / 5, lr, 4),
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
    for i in range(steps):
        t, g = jnp.asarray(i + 1.0), jax.grad(loss)(w)
        state = rule.absorb(t, state, g)
        w = rule.step(t, w, state, g)
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


def finite_tree(tree):
    return all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
class TestContract:
    """What every rule must do."""

    def test_state_keeps_structure_and_dtype(self, name, dtype):
        with jax.enable_x64(dtype == "float64"):
            rule, w, t = make(name), jnp.ones(4, dtype), jnp.ones((), dtype)
            before = rule.init(w)
            after = rule.absorb(t, before, w)
            rate = rule.motion(t, w, after, Moments(w, w, w), 0.25)
            for state in (after, rate.state):
                assert jax.tree.structure(state) == jax.tree.structure(before)
                for old, new in zip(*map(jax.tree.leaves, (before, state)), strict=True):
                    assert (old.shape, old.dtype) == (new.shape, new.dtype)
            for vector in (rate.params, rule.step(t, w, after, w)):
                assert (vector.shape, vector.dtype) == (w.shape, w.dtype)
            assert rule.edge_preconditioner(t, after).dtype == np.dtype(dtype)

    def test_averages_settle_where_the_optimizers_do(self, name, dtype):
        """The flow's fixed point under a constant gradient is the discrete recursion's."""
        with jax.enable_x64(dtype == "float64"):
            rule, g = make(name), jnp.arange(1.0, 5.0, dtype=dtype)
            state, t = rule.init(g), jnp.asarray(2000.0, dtype)
            absorb = lambda _, state: rule.absorb(t, state, g)  # noqa: E731
            state = jax.lax.fori_loop(0, 30_000, absorb, state)
            rate = rule.motion(t, g, state, Moments.still(g), 0.0).state
            for r, s in zip(jax.tree.leaves(rate), jax.tree.leaves(state), strict=True):
                np.testing.assert_allclose(r, jnp.zeros_like(s), atol=1e-5 * float(jnp.max(s)))

    def test_rates_are_those_of_the_discrete_averages(self, name, dtype):
        """F = (U(s, g) - s) / β for an average of decay β: U = s + β f."""
        with jax.enable_x64(dtype == "float64"):
            rule, w = make(name), jnp.arange(1.0, 5.0, dtype=dtype)
            t = jnp.asarray(3.0, dtype)
            state = rule.absorb(t, rule.init(w), 0.5 * w)
            rate = rule.motion(t, w, state, Moments.still(w), 0.0).state
            moved = rule.absorb(t, state, w)
            decays = {"momentum": getattr(rule, "beta1", None), "nu": getattr(rule, "beta2", None)}
            decays["momentum"] = decays["momentum"] or getattr(rule, "momentum", None)
            for part, decay in decays.items():
                if getattr(state, part) is not None:
                    np.testing.assert_allclose(
                        getattr(state, part) + decay * getattr(rate, part),
                        getattr(moved, part),
                        rtol=1000 * np.finfo(dtype).eps,
                    )

    def test_motion_is_affine_in_the_moments_of_the_oscillation(self, name, dtype):
        with jax.enable_x64(dtype == "float64"):
            rule, w, t = make(name), jnp.arange(1.0, 4.0, dtype=dtype), jnp.asarray(9.0, dtype)
            state = rule.absorb(t, rule.init(w), w)
            excess, variance = jnp.array([0.1, -2.0, 3.0], dtype), jnp.array([1.0, 2.0, 4.0], dtype)

            def motion(scale):
                return rule.motion(t, w, state, Moments(w, scale * excess, scale * variance), 0.25)

            once, twice, none = motion(1.0), motion(2.0), motion(0.0)
            difference = jax.tree.map(lambda a, b, c: a - 2.0 * b + c, twice, once, none)
            for zero, size in zip(*map(jax.tree.leaves, (difference, twice)), strict=True):
                largest = float(jnp.max(jnp.abs(size)))
                np.testing.assert_allclose(zero, jnp.zeros_like(zero), atol=1e-5 * largest)
            assert not np.allclose(once.params, none.params)
            if rule.responds:
                assert not np.allclose(once.state.nu, none.state.nu)

    def test_hyperparameters_are_traced(self, name, dtype):
        traces = []
        with jax.enable_x64(dtype == "float64"):

            @jax.jit
            def one_step(rule, w):
                traces.append(1)
                t = jnp.ones((), dtype)
                return rule.step(t, w, rule.absorb(t, rule.init(w), w), w)

            w = jnp.ones(3, dtype)
            rules = [traced(make(name, lr=lr), dtype) for lr in (0.1, 0.2, 0.4)]
            results = [one_step(rule, w) for rule in rules]
        assert len(traces) == 1
        assert not np.allclose(results[0], results[1])

    def test_a_parameter_without_gradient_does_no_harm(self, name, dtype):
        with jax.enable_x64(dtype == "float64"):
            rule, g, t = make(name), jnp.array([1.0, 0.0], dtype), jnp.ones((), dtype)
            state = rule.absorb(t, rule.init(g), g)
            rate = rule.motion(t, g, state, Moments.still(g), 0.25)
            here, moving = (t, state), (jnp.ones_like(t), rate.state)
            tangent = jax.jvp(rule.edge_preconditioner, here, moving)[1]
            assert finite_tree((rate, tangent, rule.step(t, g, state, g)))


@pytest.mark.parametrize("bias_correction", [False, True])
def test_gradient_variance_enters_the_second_moment(bias_correction):
    """dν/dt rises by (1-β₂)/β₂ of the variance: elementwise, or of its sum for the scalar rule."""
    w, variance = jnp.ones(3), jnp.array([1.0, 2.0, 4.0])
    for kind, expected in ((RMSProp, variance), (ScalarRMSProp, 7.0)):
        rule, t = kind(0.1, beta2=0.8, bias_correction=bias_correction), jnp.ones(())
        state = rule.absorb(t, rule.init(w), w)
        none = jnp.zeros(3)
        with_variance = rule.motion(t, w, state, Moments(w, none, variance), 0.25).state.nu
        without = rule.motion(t, w, state, Moments.still(w), 0.25).state.nu
        np.testing.assert_allclose(with_variance - without, 0.25 * expected, rtol=1e-5)


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
        ({"schedule": "step"}, "schedule must be constant, linear_warmup:N, a decay "),
    ],
)
def test_bad_fields_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        RMSProp(**({"lr": 0.1} | changes))


def test_rules_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GradientDescent(0.1).lr = 0.2


def test_scheduled_learning_rate_uses_the_count_before_the_step():
    rule = GradientDescent(1.0, "linear_warmup:4")
    rates = [float(rule.learning_rate(jnp.float32(t))) for t in (1, 2, 4, 9)]
    np.testing.assert_allclose(rates, [0.25, 0.5, 1.0, 1.0])
