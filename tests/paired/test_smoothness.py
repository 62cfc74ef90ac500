"""Losses that are not smooth: named by their operations, confirmed along lines, no false alarm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray import GradientDescent, run_paired
from cflows_ray.curvature import derivatives_along
from cflows_ray.paired.smoothness import has_jump, suspects
from cflows_ray.paired.tracing import trace
from cflows_ray.problem import ParamStructure, cast_floats

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((20, 6)).astype("f"), RNG.standard_normal((20, 4)).astype("f")
PARAMS = RNG.standard_normal((6, 4)) / 2


def straight_through(x):
    return x + jax.lax.stop_gradient(jnp.round(x) - x)


def stable_log_sum(x):
    highest = jnp.max(x, axis=-1, keepdims=True)
    return x - highest - jnp.log(jnp.sum(jnp.exp(x - highest), axis=-1, keepdims=True))


def one_after_the_other(x):
    return jax.lax.scan(lambda c, row: (jax.nn.relu(c + row), c), x[0], x)[1]


# what it is made of, and whether it is not smooth indeed
ACTIVATIONS = {
    "relu": (jax.nn.relu, "max", True),
    "relu_in_a_loop": (one_after_the_other, "max", True),
    "leaky_relu": (jax.nn.leaky_relu, "a comparison", True),
    "elu": (jax.nn.elu, "a comparison", True),  # its second derivative jumps
    "hard_tanh": (jax.nn.hard_tanh, "a comparison", True),
    "clip": (lambda x: jnp.clip(x, -1, 1), "min", True),
    "abs": (jnp.abs, "abs", True),
    "round": (lambda x: jnp.round(4 * x), "round", True),
    "straight_through": (straight_through, "round", True),
    "mask": (lambda x: (x > 0) * x, "a comparison", True),
    "argmax": (lambda x: jax.nn.one_hot(jnp.argmax(x, -1), 4), "", True),
    "sort": (lambda x: jnp.sort(x, -1), "sort", True),
    "max_pooling": (
        lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2), (1, 1), "SAME"),
        "max pooling",
        True,
    ),
    "softplus_by_hand": (
        lambda x: jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x))),
        "abs",
        False,
    ),
    "log_sum_by_hand": (stable_log_sum, "max", False),
    "guard_far_away": (lambda x: jnp.where(x > 50, x, jnp.sinh(0.1 * x)), "a comparison", False),
    "variance_by_hand": (
        lambda x: x / jnp.sqrt(jnp.maximum(jnp.mean(x**2) - jnp.mean(x) ** 2, 0) + 1e-5),
        "max",
        False,
    ),
}


def loss_of(activation):
    return lambda w, data: jnp.mean((activation(data[0] @ w) - data[1]) ** 2)


def traced_loss(loss, params, data, dtype="float32"):
    structure = ParamStructure.of(params, dtype)
    found, captured = trace(loss, "loss_fn", structure, data)
    return found, captured, structure


def suspected(loss, params=PARAMS, data=(X, Y)):
    found, _, structure = traced_loss(loss, params, data)
    return suspects(found.jaxpr, len(structure.shapes))


def jumps(loss, seed, dtype):
    data = cast_floats((X, Y), dtype)
    with jax.enable_x64(dtype == "float64"):
        traced, captured, structure = traced_loss(loss, PARAMS, data, dtype)
        w = jnp.asarray(structure.flatten(PARAMS))
        u = jnp.asarray(0.1 * np.random.default_rng(seed).standard_normal(w.size), dtype)

        def slopes(t):
            return derivatives_along(
                lambda w: traced(captured, structure.unflatten(w), data), w + t * u, u
            ).slopes(u)

        along = jax.jit(jax.vmap(slopes), compiler_options={"xla_backend_optimization_level": 0})
        return has_jump(
            lambda places: np.asarray(along(jnp.asarray(places, dtype)), np.float64),
            float(jnp.finfo(dtype).eps),
        )


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_suspicion_is_confirmed_or_dropped(name):
    activation, word, is_rough = ACTIVATIONS[name]
    assert word in suspected(loss_of(activation))
    assert suspected(loss_of(activation)) != ""
    assert jumps(loss_of(activation), 0, "float32") == is_rough


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "is_rough"), [("relu", True), ("log_sum_by_hand", False)])
def test_in_either_precision(name, is_rough, seed):
    assert jumps(loss_of(ACTIVATIONS[name][0]), seed, "float64") == is_rough


def masked_attention(x):
    scores = jnp.where(np.tri(4, dtype=bool), x[:4], jnp.finfo(x.dtype).min / 2)
    return jnp.pad(jax.nn.softmax(scores, axis=-1), ((0, 16), (0, 0)))


def dead_code(x):
    jnp.max(x)
    return jnp.tanh(x)


@pytest.mark.parametrize(
    "activation",
    [
        jnp.tanh, jax.nn.gelu, jax.nn.silu, jax.nn.softplus, jax.nn.softmax, jax.nn.log_softmax,
        lambda x: x - jax.nn.logsumexp(x), masked_attention, dead_code,
        lambda x: x * (np.abs(X[:, :4]) > 0.5), lambda x: x / jnp.maximum(jnp.max(X), 1.0),
    ],
    ids=[
        "tanh", "gelu", "silu", "softplus", "softmax", "log_softmax", "logsumexp",
        "masked attention", "dead code", "constant mask", "scaled data",
    ],
)  # fmt: skip
def test_what_is_smooth_is_not_even_suspected(activation):
    assert suspected(loss_of(activation)) == ""


def test_the_line_of_code_is_named():
    assert suspected(loss_of(lambda x: jnp.abs(x))).startswith("abs at test_smoothness.py:")


def test_a_long_list_is_cut():
    def many(x):
        x = jnp.abs(x)
        x = jnp.round(x)
        x = jnp.floor(x)
        x = jnp.sort(x)
        return jnp.clip(x, -1, 1)

    assert suspected(loss_of(many)).endswith("2 more")


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("height", [1.0, 1e-3])
def test_a_jump_of_any_derivative_is_found(order, height):
    """φ = exp t + height (t - c)₊ᵒʳᵈᵉʳ/order!: exp has the same value as all its derivatives."""
    place = 0.123

    def evaluate(t):
        values = np.stack([np.exp(t)] * 4, axis=1)
        for k in range(order + 1):
            power = order - k
            past = np.maximum(t - place, 0) ** power / max(power, 1)
            values[:, k] += height * (past if power else t > place)
        return values

    assert has_jump(evaluate, 1e-16)
    assert not has_jump(lambda t: np.stack([np.exp(t)] * 4, axis=1), 1e-16)


def test_what_is_not_finite_is_no_jump():
    assert not has_jump(lambda t: np.full((len(t), 4), np.nan), 1e-16)


def test_a_run_says_so():
    loss = loss_of(jax.nn.relu)
    result = run_paired(loss, PARAMS, GradientDescent(0.1), data=(X, Y), steps=2, flows=())
    assert result.status == "finished"
    assert result.status_detail.startswith("the loss is not smooth (max at test_smoothness.py:")
