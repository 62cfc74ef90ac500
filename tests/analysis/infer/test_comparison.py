"""Comparisons, trends with the learning rate, summaries and covariance fits, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import analysis
from analysis.infer import mean_interval, median_horizon, median_interval, wilson
from analysis.infer.intervals import holm
from analysis.measure import accuracy_frame

KEYS = {"workload": "w", "criterion": "mse", "rule": "rmsprop", "lr": 0.1}


def frame_of(pairs: list[tuple[float, float]], **columns: list[Any]) -> pd.DataFrame:
    """Build a frame of accuracy: final distances of central and stable, one pair a run."""
    rows = []
    for i, values in enumerate(pairs):
        given = {name: column[i] for name, column in columns.items()}
        for flow, value in zip(("central", "stable"), values, strict=True):
            row = KEYS | {"run_id": f"r{i}", "seed": i, "flow": flow, "flow_status": "ok"}
            row |= {"run_status": "finished", "final_distance": value} | given
            if flow == "central":
                row["flow_status"] = given.get("central_status", "ok")
            rows.append(row)
    return accuracy_frame(rows)


PAIRS = [(0.01, 0.1), (0.02, 0.1), (0.05, 0.1), (0.2, 0.1), (0.3, 0.1), (0.1, 0.1), (0.04, 0.1)]


def test_every_number_of_a_comparison() -> None:
    row = analysis.compare(frame_of(PAIRS), "central", "stable", by=[], seed=3).iloc[0]
    logs = np.log([a / b for a, b in PAIRS])
    assert (row["n"], row["wins"], row["ties"], row["n_runs"]) == (7, 4, 1, 7)
    assert row["win_rate"] == pytest.approx(4.5 / 7)  # a tie is half a win
    assert (row["win_low"], row["win_high"]) == pytest.approx(wilson(4.5, 7))
    assert row["median_ratio"] == pytest.approx(0.5)
    limits = np.exp(median_interval(logs, seed=3)[:2])
    assert (row["ratio_low"], row["ratio_high"], row["ratio_method"]) == (*limits, "bca")
    expected = stats.wilcoxon(logs, zero_method="zsplit").pvalue
    assert row["p_value"] == pytest.approx(expected)


def test_zero_errors_are_compared_by_difference() -> None:
    pairs = [(0.0, 0.1), (0.1, 0.3), (0.2, 0.9), (0.4, 0.3), (0.0, 0.0)]
    row = analysis.compare(frame_of(pairs), "central", "stable", by=[]).iloc[0]
    assert (row["n"], row["wins"], row["ties"]) == (5, 3, 1)
    assert row["median_ratio"] == pytest.approx(np.median([0.0, 1 / 3, 2 / 9, 4 / 3, 1.0]))
    differences = [a - b for a, b in pairs]
    expected = stats.wilcoxon(differences, zero_method="zsplit").pvalue
    assert row["p_value"] == pytest.approx(expected)


def test_infinite_errors_count_in_the_median_ratio() -> None:
    """As in means: to leave out an impossible prediction would flatter the flow that made it."""
    pairs = [*[(0.02, 0.1)] * 3, *[(np.inf, 0.1)] * 4, (np.inf, np.inf)]
    row = analysis.compare(frame_of(pairs), "central", "stable", by=[]).iloc[0]
    assert (row["n"], row["wins"], row["ties"]) == (8, 3, 1)
    assert row["median_ratio"] == np.inf  # of 0.2, 0.2, 0.2, 1, ∞, ∞, ∞, ∞ in logarithms
    assert (row["ratio_low"], row["ratio_method"]) == (pytest.approx(0.2), "order")
    assert np.isnan(row["ratio_high"])
    other = analysis.compare(frame_of(pairs), "stable", "central", by=[]).iloc[0]
    assert (other["median_ratio"], other["ratio_low"]) == (0.0, 0.0)
    assert other["ratio_high"] == pytest.approx(5.0)
    few = analysis.compare(frame_of([*pairs[:4], (0.03, 0.1)]), "central", "stable", by=[]).iloc[0]
    assert few["median_ratio"] == pytest.approx(0.2)
    assert few["ratio_method"] == "none"
    lost = analysis.compare(frame_of(pairs[3:7]), "central", "stable", by=[]).iloc[0]
    assert (lost["median_ratio"], lost["wins"]) == (np.inf, 0)
    assert lost[["ratio_low", "ratio_high"]].isna().all()


def test_an_error_of_zero_does_not_drop_the_other() -> None:
    pairs = [(0.1, 0.0), (0.2, 0.0), (0.3, 0.0), (0.1, 0.2)]
    row = analysis.compare(frame_of(pairs), "central", "stable", by=[]).iloc[0]
    assert (row["n"], row["wins"], row["median_ratio"]) == (4, 1, np.inf)


def test_a_flow_that_ended_without_an_error_has_a_ratio() -> None:
    pairs = [(np.nan, 0.1), (np.nan, 0.1), (0.05, 0.1)]
    status = ["stopped", "stopped", "ok"]
    row = analysis.compare(frame_of(pairs, central_status=status), "central", "stable", by=[])
    assert row[["n", "wins", "median_ratio"]].iloc[0].tolist() == [3, 1, 1.0]  # 1 at best


def test_what_is_left_out_is_counted() -> None:
    pairs = [(0.1, 0.2), (0.1, np.nan), (9.0, 0.1), (9.0, 0.1), (9.0, 0.1), (0.1, 0.2)]
    frame = frame_of(
        pairs,
        run_status=["finished", "finished", "diverged", "failed", "failed", "finished"],
        central_status=["diverged", "ok", "ok", "ok", "ok", "stopped"],
    )
    row = analysis.compare(frame, "central", "stable", by=[]).iloc[0]
    names = ["n", "wins", "n_runs", "n_diverged", "n_failed", "n_undefined", "n_stopped"]
    names.append("n_flow_diverged")
    assert row[names].tolist() == [2, 0, 6, 1, 2, 1, 1, 1]  # a flow that ended wins nothing
    mirrored = analysis.compare(frame, "stable", "central", by=[]).iloc[0]
    assert mirrored["n_stopped"] == mirrored["n_flow_diverged"] == 1  # whichever of the two

    summary = analysis.summarize(frame, by=["rule"], metrics=["final_distance"])
    central = summary[summary["flow"] == "central"].iloc[0]
    names = ["n", "n_runs", "n_diverged", "n_failed", "n_stopped", "n_flow_diverged"]
    assert central[names].tolist() == [3, 6, 1, 2, 1, 1]
    assert central["mean"] == pytest.approx(0.1)


def test_tables_of_several_cells_are_corrected() -> None:
    pairs = [*PAIRS, *[(0.01 * (i + 1), 0.1 + 0.01 * i) for i in range(7)]]
    frame = frame_of(pairs, rule=["a"] * 7 + ["b"] * 7, lr=[0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.4] * 2)
    table = analysis.compare(frame, "central", "stable", by=["rule"])
    assert table["p_holm"].tolist() == holm(table["p_value"]).tolist()
    assert (table["p_holm"] > table["p_value"]).any()
    trends = analysis.lr_trend(frame, metrics=["final_distance"])
    assert trends["p_holm"].tolist() == pytest.approx(holm(trends["p_value"]), nan_ok=True)
    assert (trends["p_holm"] > trends["p_value"]).any()


def test_trends_are_of_finished_runs() -> None:
    pairs = [(0.1, 0.1), (0.2, 0.1), (0.3, 0.1), (0.4, 0.1), (9.0, 9.0)]
    frame = frame_of(
        pairs, lr=[0.1, 0.2, 0.3, 0.4, 0.05], run_status=["finished"] * 4 + ["diverged"]
    )
    row = analysis.lr_trend(frame, metrics=["final_distance"]).iloc[0]
    assert (row["flow"], row["n"], row["tau"]) == ("central", 4, 1.0)
    assert row["slope"] == pytest.approx(1.0)
    expected = stats.kendalltau([1, 2, 3, 4], [1, 2, 3, 4]).pvalue
    assert row["p_value"] == pytest.approx(expected)


def test_tables_keep_units_and_categories() -> None:
    frame = frame_of(PAIRS)
    for table in (
        analysis.compare(frame, "central", "stable"),
        analysis.lr_trend(frame),
        analysis.summarize(frame),
    ):
        assert table["rule"].dtype == "category"
        assert table.attrs["units"]["horizon"] == "steps"
        assert table.query("rule == 'rmsprop'").attrs == table.attrs


def test_a_summary_by_hand() -> None:
    values = [0.01, 0.02, 0.03, 0.05, 0.08, 0.13, 0.21, 0.34, 0.55]
    slopes = [-2.0, -1.0, 0.5, 0.1, 0.2, 0.4, 0.3, 0.2, 0.1]
    frame = frame_of([(v, 1.0) for v in values], covariance_slope=slopes)
    table = analysis.summarize(frame, by=[], seed=3).set_index(["flow", "metric"])
    row = table.loc[("central", "final_distance")]
    assert tuple(row[["ci_low", "ci_high", "ci_method"]]) == mean_interval(values, seed=3)
    # A slope is no error: its limits may be negative.
    slope = table.loc[("central", "covariance_slope")]
    assert slope["ci_low"] == mean_interval(slopes, seed=3).low < 0


@pytest.mark.parametrize(
    ("metric", "low", "high"),
    [
        ("edge_fraction", 0.0, 1.0), ("doubtful_fraction", 0.0, 1.0), ("covariance_r2", 0.0, 1.0),
        ("unconverged_fraction", 0.0, 1.0), ("test_accuracy_error", 0.0, 1.0),
        ("train_accuracy_error", 0.0, 1.0), ("peak_sharpness", 0.0, np.inf),
        ("mean_num_critical", 0.0, np.inf), ("near_edge_steps", 0.0, np.inf),
        ("near_edge_steps_optimizer", 0.0, np.inf), ("log_loss_error", 0.0, np.inf),
        ("covariance_slope", -np.inf, np.inf),
    ],
)  # fmt: skip
def test_limits_are_within_what_a_metric_can_be(metric: str, low: float, high: float) -> None:
    values = [0.02, 0.98, 0.9]
    limits = mean_interval(values)
    assert limits.low < 0 < 1 < limits.high
    frame = frame_of([(0.1, 0.1)] * 3, **{metric: values})
    row = analysis.summarize(frame, by=[], metrics=[metric]).iloc[0]
    assert (row["ci_low"], row["ci_high"]) == (max(limits.low, low), min(limits.high, high))


def test_censored_horizons_in_a_summary() -> None:
    horizons, observed = [30.0, 40.0, 60.0, 80.0], [False, True, True, True]
    frame = frame_of([(0.1, 0.1)] * 4, horizon=horizons, horizon_observed=observed)
    row = analysis.summarize(frame, by=[], metrics=["horizon"]).iloc[0]
    # One of four left at 30, so the curve falls by thirds: 2/3 at 40, 1/3 at 60.
    assert (row["median"], row["n"], row["n_censored"]) == (60.0, 4, 1)
    both = analysis.summarize(frame, by=[], metrics=["horizon", "horizon_midpoint"])
    central = both[both["flow"] == "central"].set_index("metric")
    assert central.loc["horizon", "n_censored"] == 1
    assert central.loc["horizon_midpoint", "n"] == 0
    expected = median_horizon(horizons, observed)
    assert (row["ci_low"], row["ci_high"]) == (expected.low, expected.high)


def test_no_limits_no_method() -> None:
    """Without its longer run a fit of two has under three points, or three at one place."""
    for lengths, spread in (((4, 2), 1.0), ((4, 3), 0.0)):
        x = np.concatenate([np.arange(lengths[0]), spread * np.arange(lengths[1])])
        points = pd.DataFrame(
            {
                "run_id": np.repeat(["a", "b"], lengths), "flow": "central",
                "predicted": np.exp(x), "measured": np.exp(0.9 * x + 0.1 * np.sin(x)),
            }
        )  # fmt: skip
        row = analysis.covariance_fit(points, by=[]).iloc[0]
        assert np.isfinite([row["slope"], row["r2"]]).all()
        limits = ["slope_low", "slope_high", "r2_low", "r2_high"]
        assert row[limits].isna().all()
        assert row["ci_method"] == "none"


@pytest.mark.parametrize("slope", [0.8, 0.0])
def test_the_jackknife_of_a_covariance_fit(slope: float) -> None:
    """Leave out one run after the other, in a plain loop."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(6, 10))
    y = slope * x + 0.3 * rng.normal(size=(6, 1)) + 0.3 * rng.normal(size=x.shape)
    points = pd.DataFrame(
        {
            "run_id": np.repeat([f"r{i}" for i in range(6)], 10), "flow": "central",
            "predicted": np.exp(x).ravel(), "measured": np.exp(y).ravel(),
        }
    )  # fmt: skip
    row = analysis.covariance_fit(points, by=[]).iloc[0]

    def limits(values: list[float], estimate: float) -> tuple[float, float]:
        error = np.sqrt(5 / 6 * np.sum((np.array(values) - np.mean(values)) ** 2))
        half = stats.t.ppf(0.975, 5) * error
        return estimate - half, estimate + half

    rest = [np.arange(6) != i for i in range(6)]
    fits = [stats.linregress(x[keep].ravel(), y[keep].ravel()) for keep in rest]
    whole = stats.linregress(x.ravel(), y.ravel())
    assert (row["slope"], row["r2"]) == pytest.approx((whole.slope, whole.rvalue**2))
    expected = limits([f.slope for f in fits], whole.slope)
    assert (row["slope_low"], row["slope_high"]) == pytest.approx(expected)
    low, high = np.tanh(limits([np.arctanh(f.rvalue) for f in fits], np.arctanh(whole.rvalue)))
    squares = (0.0 if low < 0 < high else min(low**2, high**2), max(low**2, high**2))
    assert (row["r2_low"], row["r2_high"]) == pytest.approx(squares)
    assert (row["r2_low"] == 0.0) == (slope == 0.0)
