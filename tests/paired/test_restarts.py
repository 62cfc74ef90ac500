"""Flows that begin anew at the optimizer every N steps: forecasts by lead time."""

from __future__ import annotations

import jax
import numpy as np
import pandas as pd
import pytest

from cflows_ray import GradientDescent, PairedOptions, PairedPack, PairedRun, Problem, RMSProp
from cflows_ray.checks import ConfigError
from cflows_ray.schema import StepStatus
from tests.networks import NETWORKS

LOSS, PARAMS = NETWORKS["tanh_regression"]()
PROBLEM = Problem(lambda w, _: LOSS(w))
FLOWS = ("central", "alternating")
EVERY, STEPS, WARMUP = 12, 30, 3
# what does not depend on how many directions are tracked
COMPARED = [
    "train_loss", "train_loss_predicted", "effective_sharpness", "sigma_trace", "num_critical",
    "distance_to_discrete", "distance_to_midpoint", "distance_to_half", "distance_from_start",
    "iterate_distance", "distance_to_mean_5",
]  # fmt: skip


def make(restart_every=EVERY, flows=FLOWS, rule=None, record_every=1, num_eigs=1, **more):
    options = PairedOptions(
        flows=flows, dtype="float64", num_eigs=num_eigs, restart_every=restart_every,
        record_every=record_every, target_windows=(5,), **more,
    )  # fmt: skip
    return PairedRun(PROBLEM, rule or GradientDescent(1.2), options)


def whole(run, steps=STEPS, warmup=WARMUP, chunk=None):
    state, frames = run.start(PARAMS, steps=steps, warmup=warmup, seed=0), []
    while not run.is_done(state):
        state, rows = run.advance(state, chunk or steps)
        state = run.from_arrays(run.to_arrays(state))  # as from a checkpoint
        frames.append(rows)
    return state, pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def forecasts():
    # equal substeps: chosen ones depend, within their tolerance, on what is tracked
    return whole(make(substeps=4))


@pytest.mark.slow
def test_every_row_says_when_its_flows_started(forecasts):
    rows = forecasts[1]
    counts = rows.groupby(["step", "process"]).size()
    assert (counts == 1).all()
    assert len(counts) == (STEPS + 1) * (1 + len(FLOWS))
    expected = np.maximum(0, (rows.step - 1) // EVERY * EVERY)
    assert (rows.start_step == expected).all()


@pytest.mark.slow
def test_forecasts_are_the_rows_of_a_run_that_starts_there(forecasts):
    rows = forecasts[1]
    run = make(restart_every=0, num_eigs=forecasts[0].num_eigs, substeps=4)
    fresh = whole(run, steps=EVERY, warmup=WARMUP + EVERY)[1]
    leads = range(1, EVERY + 1)
    for name in FLOWS:
        theirs = fresh[fresh.process == name].set_index("step").loc[leads]
        ours = rows[(rows.process == name) & (rows.start_step == EVERY)].set_index("step")
        ours = ours.set_axis(pd.Index(leads, name="step"))
        pd.testing.assert_frame_equal(ours[COMPARED], theirs[COMPARED], rtol=1e-6, atol=1e-12)
        if name == "central":
            assert (ours.num_critical > 0).any()
        else:  # but for the gradient that the row of lead 0 took
            assert (ours.num_gradients == theirs.num_gradients - 1).all()
    assert fresh.start_step.eq(0).all()


@pytest.mark.slow
def test_forecasts_do_not_depend_on_how_a_run_is_cut():
    """Nor on resuming from a checkpoint; the tracked directions grew on the way."""
    uncut = whole(make())
    assert uncut[0].num_eigs > 1
    for chunk in (1, EVERY, 7):
        state, rows = whole(make(), chunk=chunk)
        pd.testing.assert_frame_equal(rows, uncut[1], check_exact=True)
        assert state.num_eigs == uncut[0].num_eigs


CHEAP = ("persistence",)


def test_the_optimizer_is_measured_as_without_restarts():
    with_, without = (whole(make(every, CHEAP))[1] for every in (EVERY, 0))
    with_, without = (
        rows[rows.process == "discrete"].reset_index(drop=True) for rows in (with_, without)
    )
    same = [c for c in with_ if c not in ("start_step", "distance_from_start")]
    pd.testing.assert_frame_equal(with_[same], without[same], rtol=1e-9)
    # how far the optimizer has gone since the flows of the row started: what they are divided by
    first = with_.start_step == 0
    assert with_.distance_from_start[first].equals(without.distance_from_start[first])
    after = with_.step[~first & (with_.step == with_.start_step + 1)].index
    assert (with_.distance_from_start[after] < 0.5 * without.distance_from_start[after]).all()


def test_persistence_is_off_by_what_the_optimizer_went():
    rows = whole(make(5, CHEAP, record_every=2))[1]
    there, here = (
        rows[rows.process == name].reset_index(drop=True) for name in ("persistence", "discrete")
    )
    np.testing.assert_allclose(there.distance_to_discrete, here.distance_from_start, atol=1e-14)
    # the step at which flows begin anew has a row as well: that of the whole lead
    assert list(there.step) == sorted({*range(0, STEPS + 1, 2), *range(0, STEPS + 1, 5)})
    assert set(there.step - there.start_step) == {0, 1, 2, 3, 4, 5}


def test_a_flow_that_stopped_begins_anew():
    run = make(EVERY, ("corrected",), corrected_sharpness_limit=1.7)
    state, rows = whole(run)
    found = rows[rows.process == "corrected"]
    ended = found[found.status == "stopped"]
    # the first on its way, others where they begin, past the limit: that is said one step later
    assert 1 < ended.step.iloc[0] < EVERY
    assert list(ended.step.iloc[1:]) == [EVERY + 1, 2 * EVERY + 1]
    assert (ended.groupby("start_step").size() == 1).all()  # no row after it
    assert run.outcome(state) == ("finished", "corrected flow stopped in 3 of 3 forecasts")
    last = found.groupby("start_step").step.max()
    assert (last[ended.start_step].to_numpy() == ended.step.to_numpy()).all()
    assert found.start_step.nunique() == 3


def test_what_stopped_in_an_earlier_forecast_alone_is_said():
    run = make(EVERY, CHEAP)
    state = run.start(PARAMS, steps=STEPS, warmup=WARMUP, seed=0)
    state, _ = run.advance(state, EVERY)
    stopped = np.asarray(StepStatus.STOPPED, state.processes["persistence"].status.dtype)
    process = state.processes["persistence"]._replace(status=stopped)
    state = state._replace(processes=state.processes | {"persistence": process})
    assert run.outcome(state) == ("running", "persistence flow stopped in 1 of 1 forecasts")
    state, rows = run.advance(state, STEPS)
    assert rows.status.eq("ok").all()
    assert run.outcome(state) == ("finished", "persistence flow stopped in 1 of 3 forecasts")


def test_members_of_a_pack_begin_anew_each_for_itself():
    runs = [make(5, ("alternating",), RMSProp(lr, beta2=0.95)) for lr in (0.01, 0.02)]
    starts = [
        run.start(PARAMS, steps=12, warmup=warmup, seed=0)
        for run, warmup in zip(runs, (0, 3), strict=True)
    ]
    starts[1], _ = runs[1].advance(starts[1], 2)  # so that they restart at different times
    frames = PairedPack(runs).advance(starts, 12)[1]
    for run, state, frame in zip(runs, starts, frames, strict=True):
        alone = run.advance(jax.tree.map(np.asarray, state), 12)[1]
        assert set(alone.start_step) == {0, 5, 10}
        # eigenvalues are recorded to a tolerance only
        loose = ["effective_sharpness", "effective_eigs", "eig_residual", "num_hvps"]
        frame, alone = (rows.drop(columns=loose) for rows in (frame, alone))
        pd.testing.assert_frame_equal(frame, alone, rtol=1e-6, atol=1e-9)


def test_an_interval_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="restart_every must be an integer >= 0, got -1"):
        PairedOptions(restart_every=-1)
