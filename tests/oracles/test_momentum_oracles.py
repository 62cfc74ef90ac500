"""The oracles of momentum against optax, against each other and against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.networks import NETWORKS
from tests.oracles import optimizers as loops
from tests.oracles.momentum import MomentumRule, Scheme, flow_path, optimizer_path
from tests.oracles.preconditioned import DenseLoss

STEPS = 200
LR, BETA1, BETA2, EPS, DECAY = 0.002, 0.9, 0.97, 1e-6, 0.1


def factor(k):
    return 0.25 + 0.75 * np.exp(-k / 40)


def scheduled(k):
    return LR * (0.25 + 0.75 * jnp.exp(-k / 40.0))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


# name: optax's transformation, NumPy loop, MomentumRule
RULES = {
    "heavy_ball": (
        optax.sgd(scheduled, BETA1),
        lambda *a: loops.sgd(*a, LR, BETA1, factor=factor),
        MomentumRule("sgd", LR, BETA1, factor=factor),
    ),
    "nesterov": (
        optax.sgd(scheduled, BETA1, nesterov=True),
        lambda *a: loops.sgd(*a, LR, BETA1, True, factor=factor),
        MomentumRule("sgd", LR, BETA1, nesterov=True, factor=factor),
    ),
    "sgd_decay": (
        optax.chain(
            optax.trace(BETA1),
            optax.add_decayed_weights(DECAY),
            optax.scale_by_learning_rate(scheduled),
        ),
        lambda *a: loops.sgd(*a, LR, BETA1, decay=DECAY, factor=factor),
        MomentumRule("sgd", LR, BETA1, decay=DECAY, factor=factor),
    ),
    "rmsprop": (
        optax.rmsprop(scheduled, BETA2, EPS, eps_in_sqrt=False, momentum=BETA1),
        lambda *a: loops.rmsprop(*a, LR, BETA2, BETA1, eps=EPS, factor=factor),
        MomentumRule("rmsprop", LR, BETA1, BETA2, EPS, factor=factor),
    ),
    "rmsprop_nesterov_corrected": (
        optax.rmsprop(
            scheduled,
            BETA2,
            EPS,
            eps_in_sqrt=False,
            momentum=BETA1,
            nesterov=True,
            bias_correction=True,
        ),
        lambda *a: loops.rmsprop(*a, LR, BETA2, BETA1, True, EPS, True, factor=factor),
        MomentumRule(
            "rmsprop", LR, BETA1, BETA2, EPS, nesterov=True, bias_correction=True, factor=factor
        ),
    ),
    "adam": (
        optax.adam(scheduled, BETA1, BETA2, EPS),
        lambda *a: loops.adam(*a, LR, BETA1, BETA2, EPS, factor=factor),
        MomentumRule("adam", LR, BETA1, BETA2, EPS, factor=factor),
    ),
    "adamw": (
        optax.adamw(scheduled, BETA1, BETA2, EPS, weight_decay=DECAY),
        lambda *a: loops.adam(*a, LR, BETA1, BETA2, EPS, decay=DECAY, factor=factor),
        MomentumRule("adam", LR, BETA1, BETA2, EPS, decay=DECAY, factor=factor),
    ),
    "nadam": (
        optax.nadam(scheduled, BETA1, BETA2, EPS),
        lambda *a: loops.adam(*a, LR, BETA1, BETA2, EPS, True, factor=factor),
        MomentumRule("adam", LR, BETA1, BETA2, EPS, nesterov=True, factor=factor),
    ),
    "scalar_adam": (
        None,
        lambda *a: loops.adam(*a, LR, BETA1, BETA2, EPS, scalar=True, factor=factor),
        MomentumRule("adam", LR, BETA1, BETA2, EPS, scalar=True, factor=factor),
    ),
}


def optax_path(transform, grad, w, steps):
    @jax.jit
    def step(w, state):
        updates, state = transform.update(grad(w), state, w)
        return optax.apply_updates(w, updates), state

    path, state = [w], transform.init(w)
    for _ in range(steps):
        w, state = step(w, state)
        path.append(w)
    return np.array(path)


@pytest.mark.parametrize("name", RULES)
def test_loops_are_optax_and_rules_are_loops(name):
    loss, w = NETWORKS["gelu_classifier"]()
    transform, loop, rule = RULES[name]
    path = loop(DenseLoss(loss).grad, w, STEPS)
    assert np.linalg.norm(path[-1] - w) > 0.1
    if transform is not None:
        theirs = optax_path(transform, jax.grad(loss), jnp.asarray(w), STEPS)
        np.testing.assert_allclose(path, theirs, rtol=1e-10, atol=1e-12)
    ours = [s.w for s in optimizer_path(loss, w, rule, STEPS)]
    np.testing.assert_allclose(ours, path, rtol=1e-10, atol=1e-12)
