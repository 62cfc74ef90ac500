"""What flows predict of a test loss and of outputs: f + ½<f'', Σ>, on the analytic saddle."""

import jax
import jax.numpy as jnp
import pytest

from cflows_ray import GradientDescent, PairedOptions, PairedRun, Problem

C, LR = 0.005, 1.0


def saddle(params, data):
    return data * (0.5 * params["y"] * params["x"] ** 2 - C * params["y"])


def run(predict):
    problem = Problem(
        saddle,
        jnp.ones(()),
        outputs=lambda params, probe: probe * params["x"] ** 2,
        probe=jnp.ones((3,)),
        test_data=2.0 * jnp.ones(()),
    )
    options = PairedOptions(dtype="float64", predict_observables=predict)
    paired = PairedRun(problem, GradientDescent(LR), options)
    params = {"x": jnp.array(0.1), "y": jnp.array(1.98)}
    state = paired.start(params, steps=60, warmup=0, seed=0)
    state, rows = paired.advance(state, 60)
    return rows, paired.final(state)


def test_test_loss_and_outputs_are_predicted():
    """Σ = 2c along x at the edge: x² is predicted as x² + 2c, twice the loss as L + y·2c."""
    with jax.enable_x64(True):
        rows, final = run(True)
    last = {name: rows[rows.process == name].iloc[-1] for name in ("central", "stable")}
    central, stable = last["central"], last["stable"]
    assert central.sigma_trace == pytest.approx(2 * C, rel=1e-3)
    assert central.test_loss_predicted == pytest.approx(2 * central.train_loss_predicted, rel=1e-6)
    gained = final["central"]["y"] * central.sigma_trace
    assert central.test_loss_predicted - central.test_loss == pytest.approx(gained, rel=1e-3)
    assert stable.test_loss_predicted == pytest.approx(stable.test_loss)
    gap = final["central"]["x"] ** 2 - final["discrete"]["x"] ** 2
    nearer = abs(gap + central.sigma_trace) / abs(gap)
    assert nearer < 0.5  # the optimizer's x² has the mean 2c, within its loops; the flow's x is 0
    found = central.output_distance_predicted / central.output_distance
    assert found == pytest.approx(nearer, rel=1e-3)
    assert rows[rows.process == "discrete"].test_loss_predicted.isna().all()


def test_they_are_null_unless_asked_for():
    with jax.enable_x64(True):
        rows, _ = run(False)
    assert rows.test_loss_predicted.isna().all()
    assert rows.output_distance_predicted.isna().all()
