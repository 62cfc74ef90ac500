"""The compiled inertial central flow against the dense float64 oracle, through the onset."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from cflows_ray import Adam, AdamW, GradientDescent, NAdam, run_paired
from tests.networks import NETWORKS
from tests.oracles.momentum import MomentumRule, Scheme, flow_path, optimizer_path

WARMUP = 5
# our rule, the oracle's, steps
CASES = {
    "heavy ball": (
        GradientDescent(1.2, momentum=0.5),
        MomentumRule("sgd", 1.2, beta1=0.5),
        50,
    ),
    "nesterov": (
        GradientDescent(0.54, momentum=0.9, nesterov=True),
        MomentumRule("sgd", 0.54, beta1=0.9, nesterov=True),
        50,
    ),
    "adam": (Adam(0.12, beta2=0.95), MomentumRule("adam", 0.12, beta2=0.95), 100),
    "adamw": (
        AdamW(0.12, beta2=0.95, weight_decay=0.01),
        MomentumRule("adam", 0.12, beta2=0.95, decay=0.01),
        100,
    ),
    "nadam": (NAdam(0.05, beta2=0.95), MomentumRule("adam", 0.05, beta2=0.95, nesterov=True), 80),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_inertial_flow_agrees_with_the_dense_oracle(name):
    rule, oracle_rule, steps = CASES[name]
    loss, params = NETWORKS["tanh_regression"]()
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
        flows=("central",),
        dtype="float64",
    )
    rows = result.steps[result.steps.process == "central"].reset_index()
    assert rows.status.eq("ok").all()
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
