"""Flows where the answer is known: the saddle, quadratics, limits, the order of the integrator."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from cflows_ray import GradientDescent, RMSProp, run_paired
from tests.networks import NETWORKS

STEPS = 200


def rows_of(result, process):
    return result.steps[result.steps.process == process].reset_index(drop=True)


@pytest.fixture(scope="module")
def saddle():
    """L(x, y) = ½ y x² - c y with c a leaf that never moves: one program serves every c."""

    def run(c, lr, substeps=4):
        params = {"x": np.array(0.1), "y": np.array(0.99 * 2 / lr)}
        return run_paired(
            losses[c], params, GradientDescent(lr), steps=400, substeps=substeps,
            flows=("stable", "central"), dtype="float64",
        )  # fmt: skip

    losses = {c: (lambda p, c=c: 0.5 * p["y"] * p["x"] ** 2 - c * p["y"]) for c in (0.002, 0.005)}
    return run


@pytest.mark.parametrize(("c", "lr"), [(0.002, 0.5), (0.005, 0.5), (0.005, 1.0)])
def test_saddle_has_the_analytic_covariance(saddle, c, lr):
    result = saddle(c, lr)
    central, stable = rows_of(result, "central").iloc[-1], rows_of(result, "stable").iloc[-1]
    assert result.status == "finished"
    assert central.num_critical == 1
    assert central.sigma_trace == pytest.approx(2 * c, rel=1e-3)
    assert central.sigma_eigs[0] == pytest.approx(2 * c / lr, rel=1e-3)
    assert central.train_loss_predicted - central.train_loss == pytest.approx(2 * c / lr, rel=1e-3)
    assert result.final["central"]["y"] == pytest.approx(2 / lr, rel=1e-3)
    assert central.effective_sharpness == pytest.approx(2, rel=1e-3)
    # without oscillation y only rises
    assert result.final["stable"]["y"] == pytest.approx(0.99 * 2 / lr + 400 * lr * c, rel=5e-2)
    assert stable.effective_sharpness > 2
    # the prediction is of the optimizer: variance along x, averaged over the end of the run
    oscillation = rows_of(result, "central").displacement_sq[100:].map(lambda x: x[0]).mean()
    assert oscillation == pytest.approx(2 * c / lr, rel=0.3)


def quadratic(w):
    return 0.5 * jnp.sum(jnp.arange(1.0, 5.0) * w**2) + 0.5 * (w[0] + w[1] - w[3]) ** 2


def test_below_the_edge_every_flow_is_the_matrix_exponential():
    start, lr = np.array([1.0, -1.0, 0.5, 2.0]), 0.1
    result = run_paired(
        quadratic, start, GradientDescent(lr), steps=20, substeps=64, dtype="float64"
    )
    with jax.enable_x64(True):
        H = np.asarray(jax.hessian(quadratic)(jnp.asarray(start)))
    expected = scipy.linalg.expm(-lr * 20 * H) @ start
    for flow in ("stable", "central"):
        gap = np.linalg.norm(result.final[flow] - expected)
        assert gap < 0.01 * np.linalg.norm(expected), flow
    np.testing.assert_allclose(result.final["stable"], result.final["central"], rtol=1e-12)
    assert rows_of(result, "central").num_critical.eq(0).all()
    assert rows_of(result, "central").sigma_trace.eq(0).all()
    top = rows_of(result, "discrete").effective_sharpness
    np.testing.assert_allclose(top, lr * np.linalg.eigvalsh(H)[-1], rtol=1e-3)


def test_rmsprop_with_a_constant_preconditioner_is_gradient_descent():
    loss, params = NETWORKS["tanh_regression"]()
    # equal substeps: chosen ones go by an estimate, which sees the eigensolver's last digits
    settings = {"steps": 60, "dtype": "float64", "flows": ("central",), "substeps": 4}
    # ε so large that P = (√ν + ε)/η is ε/η up to 1e-9
    flat = run_paired(loss, params, RMSProp(lr=0.8e9, eps=1e9), **settings)
    plain = run_paired(loss, params, GradientDescent(lr=0.8), **settings)
    ours, theirs = rows_of(flat, "central"), rows_of(plain, "central")
    assert theirs.num_critical.max() >= 1
    for column in ("train_loss", "train_loss_predicted", "sigma_trace", "effective_sharpness"):
        np.testing.assert_allclose(ours[column], theirs[column], rtol=1e-5, atol=1e-9)


@functools.cache
def end_of_the_central_flow(substeps, scheme):
    loss, params = NETWORKS["tanh_regression"]()
    result = run_paired(
        loss, params, GradientDescent(0.8), steps=60, warmup=5, substeps=substeps,
        scheme=scheme, flows=("central",), dtype="float64", record_every=60,
    )  # fmt: skip
    return result.final["central"]


@pytest.mark.parametrize(
    ("scheme", "order", "coarsest_error"), [("euler", 1, 0.03), ("extrapolated", 2, 0.001)]
)
def test_order_of_the_schemes_while_the_critical_set_is_constant(scheme, order, coarsest_error):
    exact = end_of_the_central_flow(48, "extrapolated")
    errors = [np.linalg.norm(end_of_the_central_flow(n, scheme) - exact) for n in (2, 4, 8)]
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    assert errors[0] < coarsest_error
    assert np.all(np.abs(slopes - order) < 0.1), slopes


@pytest.mark.parametrize("kind", ["gradient_descent", "rmsprop"])
def test_the_central_flow_ends_far_closer_than_the_stable_flow(kind):
    loss, params = NETWORKS["tanh_regression"]()
    rule = GradientDescent(0.8) if kind == "gradient_descent" else RMSProp(0.01, beta2=0.95)
    result = run_paired(loss, params, rule, steps=STEPS, warmup=5, dtype="float64")
    last = {name: rows_of(result, name).iloc[-1] for name in ("central", "stable")}
    assert last["central"].distance_to_midpoint < 0.3 * last["stable"].distance_to_midpoint
