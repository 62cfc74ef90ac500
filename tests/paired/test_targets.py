"""Half-way points, means over windows, growth rate and loop period: against what they mean."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from cflows_ray import GradientDescent, PairedOptions, PairedRun, Problem, RMSProp, run_paired
from cflows_ray.flows.loops import loop_columns
from cflows_ray.rules.momentum import Filter, heavy_ball, nesterov
from tests.networks import NETWORKS

LOSS, PARAMS = NETWORKS["tanh_regression"]()
FLOWS = ("central", "alternating", "rod", "persistence")
WINDOWS = ("5", "20", "loop")
STEPS = 50


def make(record_every=1, flows=FLOWS, windows=WINDOWS):
    options = PairedOptions(
        flows=flows, dtype="float64", record_every=record_every, target_windows=windows
    )
    return PairedRun(Problem(lambda w, _: LOSS(w)), GradientDescent(1.2), options)


@pytest.fixture(scope="module")
def stepwise():
    """Give the points of every process at every step, and the rows, one step a chunk."""
    run = make()
    state = run.start(PARAMS, steps=STEPS, warmup=3, seed=0)
    points = {name: [] for name in state.processes}
    own, frames = {"alternating": [], "rod": []}, []
    while not run.is_done(state):
        before = state
        state, rows = run.advance(state, 1)
        frames.append(rows)
        for name in points:
            points[name].append(np.asarray(state.processes[name].params))
        for name in own:
            own[name].append(before.processes[name].own)
        if int(before.step) == STEPS - 1:  # that chunk had the last row as well
            break
    return pd.concat(frames), {n: np.array(p) for n, p in points.items()}, own


def rows_of(rows, process):
    return rows[rows.process == process].set_index("step")


def test_half_way_points_are_compared_at_their_own_time(stepwise):
    rows, points, own = stepwise
    w = points["discrete"]
    half = 0.5 * (w[:-2] + w[1:-1])
    for name in FLOWS:
        found = rows_of(rows, name).distance_to_half
        c = points[name]
        ours = 0.5 * (c[:-2] + c[1:-1])
        if name == "rod":  # z̄(t - ½), as the state before step t has it
            ours = np.array([np.asarray(x.before.params) for x in own[name]])[1 : len(ours) + 1]
        if name == "alternating":  # of iterates, mean and swing together
            told = [x.split.mean.params + x.sign * x.split.swing.params for x in own[name]]
            ours = 0.5 * np.array([a + b for a, b in itertools.pairwise(told)])
            ours = ours[: len(half)]
        expected = np.linalg.norm(ours - half, axis=1)
        assert np.isnan(found[0])
        np.testing.assert_allclose(found.to_numpy()[1 : len(expected) + 1], expected, rtol=1e-9)
    assert rows_of(rows, "discrete").distance_to_half.isna().all()


def windows_by_hand(gaps, lengths, first=1):
    """Norm of the mean gap of windows in a row, by the step in which each ends."""
    found, begin = {}, first
    while begin < len(gaps):
        n = lengths(begin)
        if n == 0:
            begin += 1
            continue
        if begin + n > len(gaps):
            break
        found[begin + n - 1] = np.linalg.norm(gaps[begin : begin + n].mean(axis=0))
        begin += n
    return found


@pytest.mark.parametrize("window", WINDOWS)
def test_means_over_windows(stepwise, window):
    rows, points, _ = stepwise
    period = rows_of(rows, "central").loop_period.round().fillna(0).astype(int)
    lengths = (lambda t: period[t]) if window == "loop" else (lambda _: int(window))
    for name in FLOWS:
        gaps = points[name] - points["discrete"]
        expected = windows_by_hand(gaps[:-1], lengths)
        found = rows_of(rows, name)[f"distance_to_mean_{window}"].dropna()
        found = found[found.index < STEPS]
        assert len(expected) >= 2
        assert list(found.index) == list(expected)
        np.testing.assert_allclose(found, list(expected.values()), rtol=1e-9)
    assert rows_of(rows, "discrete")[f"distance_to_mean_{window}"].isna().all()


def cheaply(steps, record_every, windows):
    run = make(record_every, ("persistence",), windows)
    state = run.start(PARAMS, steps=steps, warmup=3, seed=0)
    return run.advance(state, steps)


def test_a_window_that_ends_between_rows_is_said_in_the_next_one():
    coarse, fine = (
        rows_of(cheaply(21, every, ("5",))[1], "persistence").distance_to_mean_5 for every in (3, 1)
    )
    # the windows' ends and the rows that say so
    said = {6: 5, 12: 10, 15: 15, 21: 20}
    assert list(fine.dropna().index) == list(said.values())
    assert list(coarse.dropna().index) == list(said)
    np.testing.assert_allclose(coarse.dropna(), fine.dropna(), rtol=1e-12)


def test_no_window_of_a_loop_without_the_central_flow():
    state, rows = cheaply(12, 1, ("loop",))
    assert rows.distance_to_mean_loop.isna().all()
    assert int(state.windows.counted[0]) == 0


# Growth rate and loop period ---------------------------------------------------------------------

SPEED = 0.002


def floor(params):
    """Return the loss in a valley along y, of curvature y; y rises at the speed ε."""
    return 0.5 * params["y"] * params["x"] ** 2 - SPEED * params["y"]


@pytest.mark.slow
def test_growth_rate_and_loop_period_on_the_floor_of_a_valley_with_momentum():
    """The curvature rises at ηε/(1-β) a step, the edge is at 2(1+β)/η, and G = (1+β)/(1-β)."""
    beta, lr = 0.5, 0.5
    params = {"x": jnp.array(0.0), "y": jnp.array(0.99 * 2 * (1 + beta) / lr)}
    result = run_paired(
        floor, params, GradientDescent(lr, momentum=beta), steps=20, warmup=20,
        flows=("central",), dtype="float64",
    )  # fmt: skip
    row = rows_of(result.steps, "central").iloc[-1]
    r = lr * SPEED / (1 - beta) * lr / (1 + beta)
    assert row.growth_rate == pytest.approx(r, rel=1e-6)
    assert row.loop_period == pytest.approx(2 * np.pi / np.sqrt(2 * 3.0 * r), rel=1e-6)


@pytest.mark.parametrize("beta", [0.5, 0.9])
def test_gain_of_the_filters_is_that_of_the_theory(beta):
    """The table of docs/momentum-theory.md; Adam's filter has heavy ball's gain."""
    heavy = (1 + beta) / (1 - beta)
    assert heavy_ball(beta).growth_gain == pytest.approx(heavy, rel=1e-5)
    adam = Filter(*map(jnp.asarray, (beta, 1 - beta, 1.0, 0.0)))
    assert adam.growth_gain == pytest.approx(heavy, rel=1e-5)
    expected = 1 / (1 - 2 * beta**2 / ((1 + beta) * (1 + 2 * beta)))
    assert nesterov(beta).growth_gain == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_growth_rate_is_that_of_the_stable_flow():
    """Where the central flow meets the edge both are at one point: r is ds/dt there."""
    result = run_paired(
        LOSS, PARAMS, RMSProp(0.012, beta2=0.95), steps=25, warmup=5, dtype="float64", substeps=8,
        flows=("stable", "central"),
    )  # fmt: skip
    central, stable = rows_of(result.steps, "central"), rows_of(result.steps, "stable")
    below = central.num_critical == 0
    assert below.iloc[0]
    assert (~below).any()
    first = below.idxmin()
    assert central.growth_rate[below].isna().all()
    assert central.loop_period[below].isna().all()
    s = stable.effective_sharpness
    slope = (s[first + 1] - s[first - 1]) / 2
    assert central.growth_rate[first] == pytest.approx(slope, rel=0.1)


def test_of_several_directions_the_slowest_that_rises_says_the_period():
    rate = np.diag([-0.5, -0.02, 0.3, -0.001])  # of A: the sharpness rises where it is negative
    rotation = np.linalg.qr(np.arange(16.0).reshape(4, 4) % 7 + np.eye(4))[0]
    critical = jnp.array([True, True, True, False])
    found = loop_columns(
        jnp.asarray(rotation @ rate @ rotation.T), jnp.asarray(rotation), critical, jnp.ones(())
    )
    assert found["growth_rate"] == pytest.approx(0.02, rel=1e-4)
    assert found["loop_period"] == pytest.approx(2 * np.pi / np.sqrt(0.04), rel=1e-4)
    found = loop_columns(jnp.asarray(-rate), jnp.eye(4), critical.at[2].set(False), jnp.ones(()))
    assert found["growth_rate"] == pytest.approx(-0.02, rel=1e-4)
    assert np.isnan(found["loop_period"])
