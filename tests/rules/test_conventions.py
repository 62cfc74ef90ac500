"""The conventions of docs/theory.md: NumPy loops hold ours, and say where PyTorch's are others.

PyTorch's loops are from its documentation (`tests/oracles/optimizers.py`); it is no dependency.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray.rules import Adam, AdamW, GradientDescent, NAdam, RMSProp
from tests.oracles import optimizers

STEPS, COSINE = 60, "cosine:50:0.1"
WEIGHTS, START = np.arange(1.0, 7.0), np.linspace(-1.0, 1.0, 6)


def grad(w):
    """Return the gradient of Σ i cos(w_i) + 0.1 |w|⁴, with NumPy or JAX."""
    sin = jnp.sin if isinstance(w, jax.Array) else np.sin
    return -WEIGHTS * sin(w) + 0.4 * w**3


def cosine(k):
    return 0.1 + 0.9 * 0.5 * (1.0 + np.cos(np.pi * min(k, 50) / 50))


def ours(rule):
    def step(carry, i):
        w, state = carry
        t, g = i + 1.0, grad(w)
        state = rule.absorb(t, state, g)
        w = rule.step(t, w, state, g)
        return (w, state), w

    with jax.enable_x64(True):
        w = jnp.asarray(START)
        path = jax.lax.scan(step, (w, rule.init(w)), jnp.arange(STEPS) * 1.0)[1]
        return np.concatenate([START[None], path])


def loop(function, *numbers, **more):
    return function(grad, START, STEPS, *numbers, **more)


# our rule as it is written; the loop of our convention; PyTorch's, and whether it is the same
CONVENTIONS = {
    "heavy ball": (
        lambda s: GradientDescent(0.01, s, momentum=0.9),
        lambda f: loop(optimizers.sgd, 0.01, momentum=0.9, factor=f),
        lambda f: loop(optimizers.torch_sgd, 0.01, momentum=0.9, factor=f),
        {"constant", COSINE},
    ),
    "nesterov": (
        lambda s: GradientDescent(0.01, s, momentum=0.9, nesterov=True),
        lambda f: loop(optimizers.sgd, 0.01, momentum=0.9, nesterov=True, factor=f),
        lambda f: loop(optimizers.torch_sgd, 0.01, momentum=0.9, nesterov=True, factor=f),
        {"constant", COSINE},
    ),
    "decay of gradient descent, without momentum": (
        lambda s: GradientDescent(0.01, s, weight_decay=0.1),
        lambda f: loop(optimizers.sgd, 0.01, decay=0.1, factor=f),
        lambda f: loop(optimizers.torch_sgd, 0.01, weight_decay=0.1, factor=f),
        {"constant", COSINE},
    ),
    "decay of the heavy ball": (
        lambda s: GradientDescent(0.01, s, momentum=0.9, weight_decay=0.1),
        lambda f: loop(optimizers.sgd, 0.01, momentum=0.9, decay=0.1, factor=f),
        lambda f: loop(optimizers.torch_sgd, 0.01, momentum=0.9, weight_decay=0.1, factor=f),
        set(),
    ),
    "rmsprop": (
        lambda s: RMSProp(0.005, eps=1e-3, schedule=s),
        lambda f: loop(optimizers.rmsprop, 0.005, 0.99, eps=1e-3, factor=f),
        lambda f: loop(optimizers.torch_rmsprop, 0.005, eps=1e-3, factor=f),
        {"constant", COSINE},
    ),
    "rmsprop with momentum": (
        lambda s: RMSProp(0.001, schedule=s, momentum=0.9),
        lambda f: loop(optimizers.rmsprop, 0.001, 0.99, momentum=0.9, factor=f),
        lambda f: loop(optimizers.torch_rmsprop, 0.001, momentum=0.9, factor=f),
        {"constant"},
    ),
    "adam": (
        lambda s: Adam(0.02, eps=1e-3, schedule=s),
        lambda f: loop(optimizers.adam, 0.02, 0.9, 0.999, eps=1e-3, factor=f),
        lambda f: loop(optimizers.torch_adam, 0.02, eps=1e-3, factor=f),
        {"constant", COSINE},
    ),
    "adamw": (
        lambda s: AdamW(0.02, schedule=s, weight_decay=0.1),
        lambda f: loop(optimizers.adam, 0.02, 0.9, 0.999, decay=0.1, factor=f),
        lambda f: loop(optimizers.torch_adam, 0.02, weight_decay=0.1, decoupled=True, factor=f),
        {"constant", COSINE},
    ),
    "nadam": (
        lambda s: NAdam(0.02, schedule=s),
        lambda f: loop(optimizers.adam, 0.02, 0.9, 0.999, nesterov=True, factor=f),
        lambda f: loop(optimizers.torch_nadam, 0.02, factor=f),
        set(),
    ),
}


@pytest.mark.parametrize("schedule", ["constant", COSINE])
@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_loop_holds_ours_and_pytorchs_differs_where_the_table_says(name, schedule):
    rule, loop_of_ours, loop_of_torch, same = CONVENTIONS[name]
    factor = optimizers.constant if schedule == "constant" else cosine
    path, torch = ours(rule(schedule)), loop_of_torch(factor)
    np.testing.assert_allclose(path, loop_of_ours(factor), rtol=1e-10, atol=1e-12)
    gap = np.max(np.abs(path - torch)) / np.max(np.abs(path - START))
    assert gap < 1e-9 if schedule in same else gap > 1e-3
