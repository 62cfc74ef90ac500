"""The compiled inertial central flow against the dense float64 oracle, through the onset.

Every case starts below the edge of stability and enters it; together they have three networks, and
one and several critical directions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from cflows_ray import Adam, AdamW, GradientDescent, NAdam, run_paired
from cflows_ray.rules import UpdateRule
from tests.networks import NETWORKS
from tests.oracles.momentum import MomentumRule, Scheme, flow_path, optimizer_path

WARMUP = 5


class Case(NamedTuple):
    """A rule, ours and the oracle's, on a network, and the most critical directions it meets."""

    network: str
    rule: UpdateRule
    oracle_rule: MomentumRule
    steps: int
    most: int
    num_eigs: int = 4


def _sgd(
    network: str, lr: float, beta1: float, steps: int, most: int, nesterov: bool = False
) -> Case:
    ours = GradientDescent(lr, momentum=beta1, nesterov=nesterov)
    theirs = MomentumRule("sgd", lr, beta1=beta1, nesterov=nesterov)
    return Case(network, ours, theirs, steps, most)


def _adam(network: str, lr: float, steps: int, most: int) -> Case:
    ours = Adam(lr, beta2=0.95)
    return Case(network, ours, MomentumRule("adam", lr, beta2=0.95), steps, most)


CASES = {
    "heavy ball": _sgd("tanh_regression", 1.2, 0.5, 50, 1),
    "nesterov": _sgd("tanh_regression", 0.54, 0.9, 50, 1, nesterov=True),
    "adam": _adam("tanh_regression", 0.12, 100, 2),
    "adamw": Case(
        "tanh_regression",
        AdamW(0.12, beta2=0.95, weight_decay=0.01),
        MomentumRule("adam", 0.12, beta2=0.95, decay=0.01),
        100,
        2,
    ),
    "nadam": Case(
        "tanh_regression",
        NAdam(0.05, beta2=0.95),
        MomentumRule("adam", 0.05, beta2=0.95, nesterov=True),
        80,
        2,
    ),
    "heavy ball, classifier": _sgd("gelu_classifier", 2.6, 0.5, 40, 1),
    "adam, linear": _adam("deep_linear", 0.4, 40, 2)._replace(num_eigs=8),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_inertial_flow_agrees_with_the_dense_oracle(name):
    network, rule, oracle_rule, steps, most, num_eigs = CASES[name]
    loss, params = NETWORKS[network]()
    with jax.enable_x64(True):
        flat, unravel = ravel_pytree(jax.tree.map(lambda x: jnp.asarray(x, "float64"), params))

        def flat_loss(w):
            return loss(unravel(w))

        start = optimizer_path(flat_loss, np.asarray(flat), oracle_rule, WARMUP)[-1]
        oracle = flow_path(flat_loss, start, oracle_rule, steps, Scheme(substeps=8))
    result = run_paired(
        loss,
        params,
        rule,
        steps=steps,
        warmup=WARMUP,
        substeps=8,
        num_eigs=num_eigs,
        flows=("central",),
        dtype="float64",
    )
    rows = result.steps[result.steps.process == "central"].reset_index()
    assert rows.status.eq("ok").all()
    assert oracle.num_critical[0] == 0
    assert max(oracle.num_critical) == most
    assert np.mean(np.array(oracle.num_critical) > 0) > 0.1
    assert rows.num_critical.tolist() == oracle.num_critical
    for column, expected in {
        "train_loss": oracle.loss,
        "train_loss_predicted": oracle.predicted,
        "grad_norm_sq_predicted": oracle.grad_norm_sq_predicted,
        "effective_sharpness": oracle.sharpness,
    }.items():
        np.testing.assert_allclose(rows[column], expected, rtol=1e-3, err_msg=column)
    final = ravel_pytree(result.final["central"])[0]
    gap = np.linalg.norm(final - oracle.params[-1])
    assert gap <= 1e-3 * np.linalg.norm(oracle.params[-1] - np.asarray(flat))
