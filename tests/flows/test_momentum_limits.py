"""Inertial flows where the answer is known: limits, quadratics, the saddle at the edge, float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray import (
    Adam,
    AdamW,
    GradientDescent,
    PairedOptions,
    PairedRun,
    Problem,
    RMSProp,
    run_paired,
)
from cflows_ray.rules import Moments
from tests.networks import NETWORKS
from tests.oracles.analytic import adaptive_edge, quadratic_flow, sgd_edge
from tests.oracles.momentum import MomentumRule

# Limits --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_vanishing_momentum_is_none_along_both_flows():
    loss, params = NETWORKS["tanh_regression"]()
    # equal substeps: momentum, however small, bounds chosen ones
    settings = {"steps": 40, "warmup": 5, "dtype": "float64", "substeps": 4}
    plain = run_paired(loss, params, GradientDescent(0.8), **settings)
    nearly = run_paired(loss, params, GradientDescent(0.8, momentum=1e-9), **settings)
    for flow in ("stable", "central"):
        np.testing.assert_allclose(nearly.final[flow], plain.final[flow], rtol=1e-6, atol=1e-7)
    assert plain.steps.num_critical.max() >= 1
    assert np.linalg.norm(plain.final["central"] - plain.final["stable"]) > 1e-3


def test_adamw_without_decay_moves_as_adam():
    with jax.enable_x64(True):
        w, t = jnp.linspace(-1.0, 2.0, 5), jnp.asarray(3.0)
        seen = Moments(jnp.cos(w), 0.1 * w, w**2)
        moved = []
        for rule in (Adam(0.1), AdamW(0.1, weight_decay=0.0), AdamW(0.1, weight_decay=0.1)):
            state = rule.absorb(t, rule.init(w), jnp.sin(w))
            rate = rule.motion(t, w, state, seen, 0.25)
            moved.append(np.concatenate([rate.params, *rate.state]))
    assert np.array_equal(moved[0], moved[1])
    assert not np.allclose(moved[0], moved[2])


@pytest.mark.slow
def test_rmsprop_with_momentum_and_a_constant_preconditioner_is_the_heavy_ball():
    loss, params = NETWORKS["tanh_regression"]()
    settings = {"steps": 40, "warmup": 5, "dtype": "float64", "flows": ("central",)}
    # ε so large that P = (√ν + ε)/η is ε/η up to 1e-9
    flat = run_paired(loss, params, RMSProp(lr=1.2e9, eps=1e9, momentum=0.5), **settings)
    plain = run_paired(loss, params, GradientDescent(lr=1.2, momentum=0.5), **settings)
    ours, theirs = (r.steps[r.steps.process == "central"] for r in (flat, plain))
    assert theirs.num_critical.max() >= 1
    for column in ("train_loss", "train_loss_predicted", "sigma_trace", "effective_sharpness"):
        np.testing.assert_allclose(ours[column], theirs[column], rtol=1e-5, atol=1e-9)


# A quadratic below the edge -------------------------------------------------------------------

START = np.array([1.0, -1.0, 0.5, 2.0])


def quadratic(w):
    return 0.5 * jnp.sum(jnp.arange(1.0, 5.0) * w**2) + 0.5 * (w[0] + w[1] - w[3]) ** 2


HESSIAN = np.diag(np.arange(1.0, 5.0)) + np.outer(v := np.array([1.0, 1.0, 0.0, -1.0]), v)


@pytest.mark.slow
@pytest.mark.parametrize(("nesterov", "beta"), [(False, 0.5), (False, 0.9), (True, 0.9)])
def test_below_the_edge_both_flows_are_the_matrix_exponential_of_second_order(nesterov, beta):
    lr, steps = 0.05, 20
    rule = GradientDescent(lr, momentum=beta, nesterov=nesterov)
    oracle = MomentumRule("sgd", lr, beta1=beta, nesterov=nesterov)
    begin = oracle.absorb(oracle.init(START), HESSIAN @ START)
    expected = quadratic_flow(HESSIAN, oracle, begin, np.array([steps]))[0][0]
    gaps = []
    for substeps in (32, 64):
        result = run_paired(
            quadratic, START, rule, steps=steps, substeps=substeps, dtype="float64",
            record_every=steps,
        )  # fmt: skip
        assert result.steps.sigma_trace.fillna(0).eq(0).all()
        finals = [result.final[flow] for flow in ("stable", "central")]
        np.testing.assert_allclose(*finals, rtol=1e-9, atol=1e-12)
        gaps.append(np.linalg.norm(finals[1] - expected) / np.linalg.norm(START))
    assert gaps[1] < 0.01
    assert gaps[0] / gaps[1] == pytest.approx(2.0, rel=0.15)  # of first order


# The saddle ½yx² - cy at the edge ---------------------------------------------------------------

CURVED = {
    "heavy ball 0.5": (False, 0.5, 0.5, 0.002),
    "heavy ball 0.9": (False, 0.9, 0.5, 0.0005),
    "nesterov 0.9": (True, 0.9, 0.5, 0.0005),
}


@pytest.mark.parametrize("name", CURVED)
def test_heavy_ball_and_nesterov_at_the_edge_of_the_saddle(name):
    """Edge y = τ/η, Σ = 2c, loss excess cτ/η."""
    nesterov, beta, lr, c = CURVED[name]
    oracle = MomentumRule("sgd", lr, beta1=beta, nesterov=nesterov)
    expected = sgd_edge(c, oracle, np.array([1.0]))
    y, excess = expected.y[0], expected.excess[0]
    assert (y, excess) == pytest.approx((oracle.edge(1.0) / lr, c * oracle.edge(1.0) / lr))
    result = run_paired(
        lambda w, c: 0.5 * w[1] * w[0] ** 2 - c * w[1],
        np.array([1e-3, 0.995 * y]),
        GradientDescent(lr, momentum=beta, nesterov=nesterov),
        data=np.array(c),
        steps=250,
        flows=("central",),
        dtype="float64",
        record_every=50,
    )
    last = result.steps[result.steps.process == "central"].iloc[-1]
    assert (last.step, last.status, last.num_critical) == (250, "ok", 1)
    assert last.effective_sharpness == pytest.approx(2, rel=1e-3)
    assert result.final["central"][1] == pytest.approx(y, rel=1e-3)
    assert last.sigma_trace == pytest.approx(2 * c, rel=1e-3)
    assert last.train_loss_predicted - last.train_loss == pytest.approx(excess, rel=1e-3)


def test_adam_at_the_edge_of_the_saddle():
    """The edge moves: y + A log y = Bt + const, and Σ = q²(1 + 2 r₂ y'/y)."""
    lr, c, steps, later = 0.005, 1e-3, 300, 100
    oracle = MomentumRule("adam", lr, beta2=0.95)
    problem = Problem(lambda w, _: 0.5 * w[1] * w[0] ** 2 - c * w[1])
    options = PairedOptions(flows=("central",), dtype="float64")
    run = PairedRun(problem, Adam(lr, beta2=0.95), options)
    state = run.start(np.array([1e-3, 5.0]), steps=steps + later, warmup=0, seed=0)
    state, _ = run.advance(state, steps)
    y = float(state.processes["central"].own.params[1])
    state, rows = run.advance(state, later)
    rows = rows[rows.process == "central"].iloc[[0, -1]]
    expected = adaptive_edge(c, oracle, y, np.array([0.0, later]))
    assert rows.num_critical.eq(1).all()
    np.testing.assert_allclose(rows.effective_sharpness, 2.0, rtol=1e-3)
    np.testing.assert_allclose(rows.sigma_trace, expected.sigma, rtol=1e-3)
    excess = rows.train_loss_predicted - rows.train_loss
    np.testing.assert_allclose(excess, expected.excess, rtol=1e-3)
    moved = run.final(state)["central"][1] - y
    assert moved == pytest.approx(expected.y[1] - y, rel=1e-3)
    q = lr / oracle.edge(1e9)
    assert expected.sigma[0] > 1.02 * q**2  # the motion of the edge counts


# A stranger's network ---------------------------------------------------------------------------


def test_adam_on_a_strangers_float32_network():
    x = np.linspace(-1.0, 1.0, 40, dtype="float32").reshape(20, 2)
    params = {
        "hidden": [{"w": 0.5 * jnp.ones((2, 3)), "b": jnp.linspace(0.0, 1.0, 3)}],
        "out": jnp.array([1.0, -1.0, 0.5]),
    }

    def loss(p):
        layer = p["hidden"][0]
        features = jnp.tanh(x @ layer["w"] + layer["b"])
        target = jnp.sin(3.0 * jnp.arange(20) / 20)  # of the default dtype
        return jnp.mean((features @ p["out"] - target) ** 2)

    result = run_paired(loss, params, Adam(lr=0.02), steps=30)
    assert result.status == "finished"
    assert set(result.steps.process) == {"discrete", "stable", "central"}
    assert result.steps.status.eq("ok").all()
    for final in result.final.values():
        assert jax.tree.structure(final) == jax.tree.structure(params)
        assert {leaf.dtype for leaf in jax.tree.leaves(final)} == {np.dtype("float32")}
    last = result.steps[result.steps.step == 30].set_index("process")
    gone = last.distance_from_start["discrete"]
    assert gone > 0.1
    assert last.distance_to_discrete["central"] < 0.05 * gone
