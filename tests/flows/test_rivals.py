"""Rod, covariance, corrected, unforced flow and persistence against the dense oracles."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from cflows_ray import GradientDescent, PairedOptions, PairedRun, Problem, RMSProp, run_paired
from cflows_ray.rules import Adam
from tests.networks import NETWORKS
from tests.oracles import OracleRule
from tests.oracles_rivals import Rule, integrate, start_alternating, warmed
from tests.oracles_rivals_others import (
    Covariant,
    corrected_rate,
    covariance_rate,
    rod_euler_low_rank,
    start_rod,
    unforced_path,
)

STEPS, WARMUP = 30, 5
CASES = [
    ("tanh_regression", "gradient_descent", 0.8),
    ("tanh_regression", "rmsprop", 0.01),
    ("deep_linear", "rmsprop", 0.01),
]
# what is also defined with momentum
MOMENTUM = [("heavy_ball", 0.5), ("rmsprop_momentum", 0.005), ("adam", 0.02)]
FLOWS_HERE = ("rod", "covariance", "corrected", "persistence")


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def run(request):
    network, kind, lr = request.param
    loss, w = NETWORKS[network]()
    ours = GradientDescent(lr) if kind == "gradient_descent" else RMSProp(lr, beta2=0.95)
    result = run_paired(
        loss, w, ours, steps=STEPS, warmup=WARMUP, dtype="float64", flows=FLOWS_HERE
    )
    rule = Rule(kind, lr, beta2=0.95)
    with jax.enable_x64(True):
        before, here = warmed(loss, w, rule, WARMUP)
        yield result, loss, rule, before, here


def last_row(result, process):
    rows = result.steps[result.steps.process == process]
    assert rows.status.iloc[-1] == "ok"
    return rows.iloc[-1]


def assert_near(ours, theirs, start, tolerance=1e-7):
    gap = np.linalg.norm(ours - theirs)
    assert gap < tolerance * np.linalg.norm(theirs - np.asarray(start))


def test_rod_agrees_with_the_oracle_of_low_rank(run):
    result, loss, rule, _, here = run
    rod = start_rod(loss, rule, here, 2)
    step = jax.jit(lambda r: rod_euler_low_rank(loss, rule, r, 0.25))
    centre = rod.z
    for _ in range(STEPS):
        centre = rod.z
        for _ in range(4):
            rod = step(rod)
    assert_near(result.final["rod"], 0.5 * (centre + rod.z), here.w, 1e-10)
    row = last_row(result, "rod")
    assert row.sigma_trace == pytest.approx(float(jnp.sum(rod.sigma**2)), rel=1e-5)
    # the first row is the optimizer's own: its midpoint, and its iterate
    first = result.steps[(result.steps.process == "rod") & (result.steps.step == 0)].iloc[0]
    assert first.iterate_distance < 1e-12
    assert first.distance_to_midpoint < 1e-12


@pytest.mark.parametrize(("kind", "lr"), MOMENTUM)
def test_rod_and_corrected_flow_agree_with_the_oracles_of_momentum(kind, lr):
    loss, w = NETWORKS["tanh_regression"]()
    ours = {
        "heavy_ball": GradientDescent(lr, momentum=0.5),
        "rmsprop_momentum": RMSProp(lr, beta2=0.95, momentum=0.5),
        "adam": Adam(lr, beta1=0.5, beta2=0.95),
    }[kind]
    result = run_paired(
        loss, w, ours, steps=15, warmup=WARMUP, dtype="float64", flows=("rod", "corrected")
    )
    rule = Rule(kind, lr, beta1=0.5, beta2=0.95)
    with jax.enable_x64(True):
        _, here = warmed(loss, w, rule, WARMUP)
        rod, d = start_rod(loss, rule, here, 2), len(w)
        step = jax.jit(lambda r: rod_euler_low_rank(loss, rule, r, 0.25))
        for _ in range(15):
            centre = rod.z
            for _ in range(4):
                rod = step(rod)
        assert_near(result.final["rod"], 0.5 * (centre + rod.z)[:d], here.w)
        rate, flat, back = corrected_rate(loss, rule, here)
        end = back(jnp.asarray(integrate(rate, flat, 15, 4, "heun")[-1]))
        assert_near(result.final["corrected"], end.w, here.w, 1e-6)


def test_covariance_flow_agrees_with_the_oracle(run):
    """Of one column: the others are seeds at rounding level, unless they grow."""
    result, loss, rule, before, here = run
    z = start_alternating(loss, rule, before, here, threshold=None)
    nu = rule.absorb_square(here.nu, jax.grad(loss)(here.w))
    flat, back = ravel_pytree(Covariant(z.mean.w, z.swing.w[:, None], nu, here.t + 1.0))

    def rate(y):
        return ravel_pytree(covariance_rate(loss, rule, back(y)))[0]

    end = back(jnp.asarray(integrate(rate, flat, STEPS, 4, "heun")[-1]))
    assert_near(result.final["covariance"], end.w, here.w)
    row = last_row(result, "covariance")
    assert row.sigma_trace == pytest.approx(float(jnp.sum(end.V**2)), rel=1e-4, abs=1e-14)


def test_corrected_flow_agrees_with_the_oracle(run):
    """Integrated far more finely: the gap is Heun's own error."""
    result, loss, rule, _, here = run
    rate, flat, back = corrected_rate(loss, rule, here)
    end = back(jnp.asarray(integrate(rate, flat, STEPS, 4, "heun")[-1]))
    fine = back(jnp.asarray(integrate(rate, flat, STEPS, 24, "rk4")[-1]))
    scheme = np.linalg.norm(end.w - fine.w)
    assert np.linalg.norm(result.final["corrected"] - fine.w) < 1.05 * scheme + 1e-12
    last_row(result, "corrected")


def test_persistence_stays(run):
    result, loss, _, _, here = run
    np.testing.assert_allclose(result.final["persistence"], here.w, rtol=1e-12)
    row = last_row(result, "persistence")
    assert row.train_loss == pytest.approx(float(loss(here.w)), rel=1e-12)
    assert (row.num_gradients, row.num_hvps) == (0, 0)


def test_corrected_flow_takes_more_substeps_as_it_sharpens_and_stops():
    loss, w = NETWORKS["tanh_regression"]()
    options = PairedOptions(flows="corrected", dtype="float64", corrected_sharpness_limit=2.2)
    run = PairedRun(Problem(lambda w, _: loss(w)), RMSProp(0.01, beta2=0.94), options)
    rows = run.advance(run.start(w, steps=40, warmup=WARMUP, seed=0), 40)[1]
    rows = rows[rows.process == "corrected"]
    assert rows.status.iloc[-1] == "stopped"
    assert rows.effective_sharpness.iloc[-1] > 2.2 >= rows.effective_sharpness.iloc[:-1].max()
    per_step = rows.num_gradients.diff().dropna()
    assert per_step.min() == 9  # 4 substeps of Heun, and one for the power iteration


@pytest.mark.parametrize("kind", ["gradient_descent", "rmsprop"])
def test_unforced_central_flow_agrees_with_the_oracle(kind):
    loss, w = NETWORKS["tanh_regression"]()
    lr, steps = {"gradient_descent": 0.8, "rmsprop": 0.01}[kind], 25
    ours = GradientDescent(lr) if kind == "gradient_descent" else RMSProp(lr, beta2=0.95)
    result = run_paired(
        loss, w, ours, steps=steps, warmup=WARMUP, dtype="float64", flows=("central_unforced",),
        substeps=4,
    )  # fmt: skip
    with jax.enable_x64(True):
        ws, _, traces = unforced_path(loss, w, OracleRule(kind, lr, 0.95), steps, 4, WARMUP)
    assert_near(result.final["central_unforced"], ws[-1], ws[0], 1e-5)
    # the oracle's is the trace of X, in the metric
    ours = [sum(x) for x in result.steps[result.steps.process == "central_unforced"].sigma_eigs]
    np.testing.assert_allclose(ours, traces, atol=1e-4 * max([1e-8, *traces]))
    assert (max(traces) > 1e-5) == (kind == "rmsprop")
