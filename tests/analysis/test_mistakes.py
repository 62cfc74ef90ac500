"""What a user may get wrong: each call says in one line what it wants, or does what was meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import analysis
from analysis import ResultsError


def test_a_path_is_loaded(example_sweep: Path) -> None:
    results = analysis.load(example_sweep)
    for path in (example_sweep, str(example_sweep)):
        pd.testing.assert_frame_equal(analysis.accuracy(path), analysis.accuracy(results))
    found = analysis.study(example_sweep)
    assert found.results.location == str(example_sweep)
    assert len(analysis.bandwidth_sensitivity(example_sweep)) > 0
    assert len(analysis.covariance_points(example_sweep)) == len(found.points)


@pytest.mark.parametrize(
    "call",
    [
        analysis.accuracy,
        analysis.study,
        analysis.bandwidth_sensitivity,
        analysis.covariance_points,
    ],
)
def test_neither_results_nor_a_path(call: Callable[[Any], Any]) -> None:
    with pytest.raises(ResultsError, match=r"results must be what analysis\.load returns"):
        call(3)
    with pytest.raises(FileNotFoundError, match="results folder does not exist: /no/such"):
        call("/no/such")


@pytest.mark.parametrize(
    "call",
    [
        analysis.summarize,
        analysis.lr_trend,
        analysis.plot_accuracy,
        analysis.plot_horizons,
        lambda frame: analysis.compare(frame, "central", "stable"),
    ],
)
def test_another_frame_than_that_of_accuracy(
    example_sweep: Path, call: Callable[[Any], Any]
) -> None:
    results = analysis.load(example_sweep)
    wanted = r"give the frame that analysis\.accuracy returns"
    with pytest.raises(ValueError, match=wanted + r"; this one lacks \['flow', 'run_status'"):
        call(results.runs)
    with pytest.raises(ValueError, match=wanted + ", got Results"):
        call(results)


def test_keys_of_a_covariance_fit(example_sweep: Path) -> None:
    points = analysis.covariance_points(example_sweep)
    by_list = analysis.covariance_fit(points, by=["rule"])
    pd.testing.assert_frame_equal(analysis.covariance_fit(points, by="rule"), by_list)
    with pytest.raises(ValueError, match="by: no column 'foo' to group by"):
        analysis.covariance_fit(points, by=["foo"])
    with pytest.raises(ValueError, match=r"that analysis\.covariance_points returns"):
        analysis.covariance_fit(analysis.accuracy(example_sweep))


def test_one_name_need_not_be_a_list(example_sweep: Path) -> None:
    frame = analysis.accuracy(example_sweep)
    assert set(analysis.summarize(frame, metrics="nu_error")["metric"]) == {"nu_error"}
    assert set(analysis.lr_trend(frame, metrics="nu_error")["metric"]) == {"nu_error"}
    table = analysis.compare(frame, "central", "stable", by="rule", metrics="mean_distance")
    assert set(table["metric"]) == {"mean_distance"}


def test_a_flow_is_not_compared_with_itself(example_sweep: Path) -> None:
    frame = analysis.accuracy(example_sweep)
    with pytest.raises(ValueError, match="two different flows are needed, got 'central' twice"):
        analysis.compare(frame, "central", "central")
