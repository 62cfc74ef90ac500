"""Metrics of arrays: hand-computed cases, edge cases, trajectories with known error."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.measure import DEFAULT_BANDWIDTH, half_window, time_average
from analysis.measure import formulas as metrics

NAN = np.nan


def slow_average(step: np.ndarray, values: np.ndarray, bandwidth: float) -> np.ndarray:
    """Sum the kernel's definition term by term."""
    reach = half_window(bandwidth, step[1] - step[0]) * (step[1] - step[0])
    out = np.full(len(step), NAN)
    for i, t in enumerate(step):
        if t - reach < step[0] or t + reach > step[-1]:
            continue
        inside = np.abs(step - t) <= reach
        weights = np.exp(-((step[inside] - t) ** 2) / (2 * bandwidth**2))
        out[i] = np.sum(weights * values[inside]) / np.sum(weights)
    return out


@pytest.mark.parametrize(("spacing", "bandwidth"), [(1, 3.0), (2, 5.0), (5, 10.0), (1, 0.7)])
def test_time_average_is_its_definition(spacing: int, bandwidth: float) -> None:
    step = np.arange(0, 100 * spacing, spacing)
    values = np.random.default_rng(0).normal(size=100)
    np.testing.assert_allclose(
        time_average(step, values, bandwidth), slow_average(step, values, bandwidth), rtol=1e-12
    )


def test_time_average_keeps_a_straight_line_and_removes_an_oscillation() -> None:
    step = np.arange(200)
    average = time_average(step, 0.5 * step + 7 * (-1.0) ** step, 10.0)
    np.testing.assert_allclose(average[40:160], 0.5 * step[40:160], atol=2e-3)


def test_time_average_excludes_what_the_window_cannot_see() -> None:
    average = time_average(np.arange(100), np.ones(100), 10.0)
    assert np.isnan(average[:40]).all()
    assert np.isnan(average[60:]).all()
    assert np.isfinite(average[40:60]).all()
    assert np.isnan(time_average(np.arange(80), np.ones(80), 10.0)).all()


def test_time_average_does_not_bridge_a_gap() -> None:
    values = np.ones((100, 2))
    values[50, 1] = NAN
    average = time_average(np.arange(100), values, 2.0)
    assert np.isfinite(average[8:92, 0]).all()
    assert np.isnan(average[42:59, 1]).all()
    assert np.isfinite(average[8:42, 1]).all()
    assert np.isfinite(average[59:92, 1]).all()


def test_time_average_stops_at_an_irregular_step() -> None:
    step = np.append(np.arange(0, 100, 2), 99)  # the last step is always recorded
    average = time_average(step, np.ones(51), 4.0)
    assert np.isfinite(average[8:42]).all()
    assert np.isnan(average[42:]).all()


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, NAN, np.inf])
def test_bad_bandwidth(bandwidth: float) -> None:
    with pytest.raises(ValueError, match="bandwidth must be a positive number"):
        time_average(np.arange(5), np.ones(5), bandwidth)


def test_relative_distance_is_undefined_at_the_start() -> None:
    relative = metrics.relative_distance([0.0, 1.0, NAN], [0.0, 4.0, 5.0])
    np.testing.assert_equal(relative, [NAN, 0.25, NAN])


@pytest.mark.parametrize(
    ("relative", "stopped", "expected"),
    [
        ([0.0, 0.06, 0.01, 0.08], False, (10, True)),  # the first, not the last crossing
        ([0.0, 0.05, 0.05, 0.05], False, (30, False)),  # at the tolerance is not above it
        ([0.0, 0.01, NAN, NAN], False, (10, False)),
        ([0.0, 0.01, NAN, NAN], True, (10, True)),
        ([NAN] * 4, True, (NAN, False)),
    ],
)
def test_horizon(relative: list[float], stopped: bool, expected: tuple[float, bool]) -> None:
    found = metrics.prediction_horizon([0, 10, 20, 30], relative, tolerance=0.05, stopped=stopped)
    np.testing.assert_equal(tuple(found), expected)


@pytest.mark.parametrize(
    ("relative", "stopped", "expected"),
    [
        ([0.2, 0.06, 0.01, 0.02], False, (30, False)),  # an early excursion only
        ([0.0, 0.01, 0.06, 0.07], False, (20, True)),  # a late one
        ([0.2, 0.01, 0.06, 0.07], False, (20, True)),  # both: the last counts
        ([0.2, 0.3, 0.06, 0.07], False, (0, True)),  # never near
        ([0.0, 0.05, 0.05, 0.05], False, (30, False)),  # none: at the tolerance is not above it
        ([0.2, 0.01, 0.02, NAN], True, (20, True)),  # stopped while near: at its last step
        ([0.2, 0.01, 0.06, NAN], True, (20, True)),  # stopped while far: where that began
        ([0.0, 0.01, 0.06, np.inf], False, (20, True)),
        ([NAN] * 4, True, (NAN, False)),
    ],
)
def test_lasting_horizon(
    relative: list[float], stopped: bool, expected: tuple[float, bool]
) -> None:
    found = metrics.prediction_horizon(
        [0, 10, 20, 30], relative, tolerance=0.05, stopped=stopped, lasting=True
    )
    np.testing.assert_equal(tuple(found), expected)


@pytest.mark.parametrize("tolerance", [0.0, -1.0, 1.0, 5.0, NAN])
def test_a_tolerance_is_between_0_and_1(tolerance: float) -> None:
    with pytest.raises(ValueError, match="tolerance must be > 0 and < 1, got"):
        metrics.prediction_horizon([0, 1], [0.0, 0.1], tolerance=tolerance)


def test_an_overflow_is_no_number_of_any_mean() -> None:
    inf = np.inf
    np.testing.assert_equal(metrics.relative_distance([1.0, inf, 1.0], [4.0, inf, inf])[1:], NAN)
    assert metrics.prediction_horizon([0, 1, 2], [0.0, inf, 0.0]) == (1.0, True)
    assert metrics.mean_value([1.0, inf, 3.0]) == 2.0
    assert metrics.final_value([1.0, inf]) == 1.0
    assert metrics.log_error([2.0, inf, 1.0], [1.0, 1.0, inf]) == pytest.approx(np.log(2))
    assert metrics.absolute_error([1.0, inf], [3.0, 1.0]) == 2.0
    assert metrics.relative_error([1.0, inf, 1.0], [2.0, 1.0, inf]) == 0.5
    assert metrics.steps_near_edge([0, 1], [2.0, inf]) == 1.0
    assert metrics.log_log_fit([1, 2, 3, inf], [1, 2, 3, 4]).points == 3
    average = time_average(np.arange(30), np.where(np.arange(30) == 20, inf, 1.0), 1.0)
    assert np.isfinite(average).tolist() == [4 <= t < 16 or 24 < t < 26 for t in range(30)]


def test_log_error_is_symmetric_and_skips_what_has_no_logarithm() -> None:
    assert metrics.log_error([2.0, 1.0], [1.0, 2.0]) == pytest.approx(np.log(2))
    assert metrics.log_error([2.0, 1.0, 1.0], [1.0, 0.0, -1.0]) == pytest.approx(np.log(2))
    assert np.isnan(metrics.log_error([1.0], [0.0]))
    assert metrics.log_error([1.0, -1.0], [1.0, 1.0]) == np.inf  # impossible, so not left out


def test_relative_error() -> None:
    assert metrics.relative_error([0.0, 0.0], [1.0, 3.0]) == 1.0
    assert metrics.relative_error([2.0, 3.0, NAN], [1.0, 4.0, 9.0]) == pytest.approx(0.4)
    assert np.isnan(metrics.relative_error([1.0], [0.0]))


def test_edge_metrics() -> None:
    assert metrics.edge_fraction([1.95, 1.94, 3.0, NAN]) == pytest.approx(2 / 3)
    assert np.isnan(metrics.edge_fraction([NAN]))
    assert metrics.steps_near_edge([0, 1, 2, 3], [1.96, 2.04, 2.05, NAN]) == 2
    assert np.isnan(metrics.steps_near_edge([0, 1], [NAN, NAN]))


def test_log_log_fit() -> None:
    x = np.geomspace(1e-6, 1.0, 20)
    fit = metrics.log_log_fit(x, 3 * x**0.5)
    assert fit.slope == pytest.approx(0.5)
    assert fit.r2 == pytest.approx(1.0)
    noisy = x * np.exp(np.random.default_rng(0).normal(size=20))
    expected = np.corrcoef(np.log(x), np.log(noisy))[0, 1] ** 2
    assert metrics.log_log_fit(x, noisy).r2 == pytest.approx(expected)
    assert metrics.log_log_fit([1, 2, -1], [1, 2, 3]).points == 2
    assert np.isnan(metrics.log_log_fit([1, 1, 1], [1, 2, 3]).slope)
    assert np.isnan(metrics.log_log_fit([1, 2], [1, 2]).slope)


def test_defaults_are_those_of_the_documents() -> None:
    assert metrics.prediction_horizon([0, 1], [0.05, 0.051]) == (1.0, True)
    assert DEFAULT_BANDWIDTH == 20.0


def test_empty_series() -> None:
    assert np.isnan(metrics.final_value([]))
    assert np.isnan(metrics.mean_value([NAN, 1.0], where=[True, False]))
