"""Points of variance: independent windows, finished runs, and one pass that gathers it all."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import CENTRAL, RunTruth, write_sweep

import analysis
from analysis.measure import time_average
from analysis.measure.smoothing import window_records
from analysis.measure.variances import independent


def test_covariance_points_are_independent_windows(example_sweep: Path) -> None:
    points = analysis.covariance_points(analysis.load(example_sweep))
    # 601 steps hold three windows of 161 steps whose centres have complete windows themselves.
    assert (points.groupby(["run_id", "direction"]).size() == 3).all()
    assert (points["predicted"] / points["measured"]).to_numpy() == pytest.approx(
        CENTRAL.variance, rel=1e-3
    )


def test_points_and_curves_are_of_finished_runs_and_real_variances(tmp_path: Path) -> None:
    central = replace(CENTRAL, variance=0.0)  # predicts an oscillation of no size
    runs = [
        RunTruth(run_id="a"),
        RunTruth(run_id="b", seed=1, status="diverged"),
        RunTruth(run_id="c", seed=2, flows={"central": central}),
        RunTruth(run_id="d", seed=3),
    ]
    folder = write_sweep(tmp_path, runs)
    shutil.rmtree(folder / "steps" / "d")
    results = analysis.load(folder)
    assert set(analysis.covariance_points(results)["run_id"]) == {"a"}
    found = analysis.study(results)
    assert set(found.points["run_id"]) == {"a"}
    assert set(found.curves["run_id"]) == {"a", "c"}
    assert set(found.accuracy["run_id"]) == {"a", "b", "c", "d"}
    pd.testing.assert_frame_equal(found.accuracy, analysis.accuracy(results))


@pytest.mark.parametrize("spacing", [1, 3, 7, 9, 10, 11, 13])
def test_no_record_is_in_two_of_the_windows(spacing: int) -> None:
    step = np.arange(600) * spacing
    # Row t, column s: how much of record s is in the average at record t.
    share = time_average(step, np.eye(len(step)), 20.0)
    every = window_records(step, 20.0)
    _, chosen = independent(np.ones_like(share), share, every)
    assert len(chosen) >= 3
    assert ((chosen != 0).sum(axis=0) <= 1).all()
    _, closer = independent(np.ones_like(share), share, every - 1)  # nor is data thrown away
    assert ((closer != 0).sum(axis=0) > 1).any()


def test_numerical_zeros_are_no_variances() -> None:
    predicted = np.array([[1e-3, 1e-26], [2e-3, 1e-4], [3e-3, 0.0]])
    few, measured = independent(predicted, np.full((3, 2), 1e-3), every=1)
    np.testing.assert_equal(np.isfinite(few), [[True, False], [True, True], [True, False]])
    assert len(measured) == 3


def test_study_gathers_the_same_numbers(example_sweep: Path) -> None:
    results = analysis.load(example_sweep)
    found = analysis.study(results)
    pd.testing.assert_frame_equal(found.accuracy, analysis.accuracy(results))
    pd.testing.assert_frame_equal(found.points, analysis.covariance_points(results))
    alone = analysis.bandwidth_sensitivity(results, bandwidths=(10, 20, 40))
    pd.testing.assert_frame_equal(found.sensitivity, alone)
    last = found.curves[found.curves["step"] == found.curves["step"].max()]
    assert set(last["flow"]) == {"central", "stable"}
    assert found.curves.groupby(["run_id", "flow"]).size().max() <= 200
