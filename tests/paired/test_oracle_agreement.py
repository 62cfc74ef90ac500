"""The compiled central flow against the dense float64 oracle, on real (small) networks.

Every case enters the edge of stability; together they have one, two and three critical directions.
Agreement is asked of loss, predicted loss and gradient norm, effective sharpness, Σ and weights.
"""

import jax
import numpy as np
import pytest

from cflows_ray import GradientDescent, RMSProp, ScalarRMSProp, run_paired
from tests.networks import NETWORKS
from tests.oracles import OracleRule, central_path

STEPS, WARMUP, SUBSTEPS = 300, 5, 4
RULES = {
    "gradient_descent": lambda lr: GradientDescent(lr),
    "scalar_rmsprop": lambda lr: ScalarRMSProp(lr, beta2=0.95),
    "rmsprop": lambda lr: RMSProp(lr, beta2=0.95),
}
# network, rule, learning rate, scheme, most critical directions met
CASES = [
    ("tanh_regression", "gradient_descent", 0.8, "euler", 2),
    ("tanh_regression", "rmsprop", 0.01, "euler", 2),
    ("gelu_classifier", "scalar_rmsprop", 0.1, "euler", 1),
    ("deep_linear", "rmsprop", 0.01, "euler", 3),
    ("attention", "scalar_rmsprop", 0.05, "euler", 1),
    ("tanh_regression", "gradient_descent", 0.8, "extrapolated", 2),
    ("tanh_regression", "rmsprop", 0.01, "extrapolated", 2),
]


@pytest.mark.slow
@pytest.mark.parametrize(("network", "kind", "lr", "scheme", "most_critical"), CASES)
def test_central_flow_agrees_with_the_dense_oracle(network, kind, lr, scheme, most_critical):
    loss, params = NETWORKS[network]()
    result = run_paired(
        loss,
        params,
        RULES[kind](lr),
        steps=STEPS,
        flows=("central",),
        warmup=WARMUP,
        substeps=SUBSTEPS,
        scheme=scheme,
        dtype="float64",
    )
    rows = result.steps[result.steps.process == "central"].reset_index()
    with jax.enable_x64(True):
        oracle = central_path(
            loss, params, OracleRule(kind, lr, 0.95), STEPS, SUBSTEPS, WARMUP, scheme
        )
    assert max(oracle.num_critical) == most_critical
    assert np.mean(np.array(oracle.num_critical) >= 1) > 0.3
    assert rows.status.eq("ok").all()
    assert rows.num_critical.tolist() == oracle.num_critical
    for column, expected in {
        "train_loss": oracle.loss,
        "train_loss_predicted": oracle.predicted,
        "grad_norm_sq_predicted": oracle.grad_norm_sq_predicted,
        "effective_sharpness": oracle.sharpness,
    }.items():
        np.testing.assert_allclose(rows[column], expected, rtol=1e-4, err_msg=column)
    np.testing.assert_allclose(
        rows.sigma_trace, oracle.sigma_trace, atol=1e-4 * max(oracle.sigma_trace)
    )
    for ours, theirs in zip(rows.sigma_eigs, oracle.sigma_eigs, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * max([1e-6, *theirs]))
    gap = np.linalg.norm(result.final["central"] - oracle.params[-1])
    assert gap <= 1e-4 * np.linalg.norm(oracle.params[-1])
