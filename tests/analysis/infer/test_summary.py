"""Cells of runs: summaries, comparisons, trends, covariance fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import STABLE, FlowTruth, RunTruth, study_runs, write_sweep

import analysis
from analysis.infer import cell_keys, mean_interval
from analysis.measure import accuracy_frame


def frame_of(folder: Path, runs: list[RunTruth]) -> pd.DataFrame:
    return analysis.accuracy(analysis.load(write_sweep(folder, runs)))


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Score the sweep of 45 runs: 43 finished, one diverged, one failed, one stopped flow."""
    runs = study_runs(steps=200)
    runs[0] = replace(
        runs[0], flows={**runs[0].flows, "stable": replace(runs[0].flows["stable"], stop=50)}
    )
    return frame_of(tmp_path_factory.mktemp("study"), runs)


def test_summary_is_that_of_the_runs(frame: pd.DataFrame) -> None:
    table = analysis.summarize(frame, metrics=["final_distance"])
    assert len(table) == 3 * 3 * 2
    row = table.query("rule == 'rmsprop' and lr == 0.02 and flow == 'central'").iloc[0]
    values = frame.query("rule == 'rmsprop' and lr == 0.02 and flow == 'central'")["final_distance"]
    assert row["n"] == 5
    assert row["mean"] == pytest.approx(values.mean())
    assert row["sd"] == pytest.approx(values.std())
    assert row["median"] == pytest.approx(values.median())
    assert (row["q25"], row["q75"]) == pytest.approx(tuple(values.quantile([0.25, 0.75])))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(mean_interval(values)[:2])


def test_what_went_wrong_is_counted(frame: pd.DataFrame) -> None:
    table = analysis.summarize(frame, by=["rule"], metrics=["final_distance"])
    bad = table[(table["rule"] == "scalar_rmsprop") & (table["flow"] == "stable")].iloc[0]
    assert (bad["n"], bad["n_runs"], bad["n_diverged"], bad["n_failed"]) == (13, 15, 1, 1)
    stopped = table[(table["rule"] == "gradient_descent") & (table["flow"] == "stable")].iloc[0]
    assert (stopped["n"], stopped["n_stopped"]) == (15, 1)


def test_undefined_metrics_are_not_averaged(frame: pd.DataFrame) -> None:
    table = analysis.summarize(frame, by=["rule"], metrics=["nu_error"]).set_index(["rule", "flow"])
    assert table.loc[("gradient_descent", "central"), "n"] == 0
    assert np.isnan(table.loc[("gradient_descent", "central"), "mean"])
    assert table.loc[("rmsprop", "central"), "mean"] == pytest.approx(0.05)


def test_horizons_are_kaplan_meiers(tmp_path: Path) -> None:
    starts = [20, 40, 60, 500]  # the last is never lost
    runs = [
        RunTruth(
            run_id=f"r{i}", seed=i, steps=90,
            flows={"central": FlowTruth(distance=0.1, distance_from=start)},
        )
        for i, start in enumerate(starts)
    ]  # fmt: skip
    table = analysis.summarize(frame_of(tmp_path, runs), metrics=["horizon"])
    row = table.iloc[0]
    assert (row["median"], row["n"], row["n_censored"]) == (40, 4, 1)
    assert row["ci_method"] == "kaplan-meier"
    assert np.isnan(row["mean"])


def test_configurations_are_not_pooled(tmp_path: Path) -> None:
    runs = [
        RunTruth(run_id=f"{b}{s}", rule="rmsprop", beta2=b, seed=s, steps=40)
        for b in (0.9, 0.99)
        for s in (0, 1)
    ]
    frame = frame_of(tmp_path, runs)
    assert cell_keys(frame) == ["workload", "criterion", "rule", "lr", "beta2"]
    table = analysis.summarize(frame, metrics=["final_distance"])
    assert sorted(table["beta2"].unique()) == [0.9, 0.99]
    assert (table["n"] == 2).all()


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    row = analysis.summarize(frame_of(tmp_path, [RunTruth(run_id="a", steps=40)])).iloc[0]
    assert (row["n"], row["ci_method"]) == (1, "none")
    assert np.isnan(row["sd"])
    assert np.isnan(row["ci_low"])


def test_all_diverged(tmp_path: Path) -> None:
    runs = [RunTruth(run_id=f"r{i}", seed=i, steps=40, status="diverged") for i in range(3)]
    frame = frame_of(tmp_path, runs)
    row = analysis.summarize(frame, metrics=["final_distance"]).iloc[0]
    assert (row["n"], row["n_runs"], row["n_diverged"]) == (0, 3, 3)
    comparison = analysis.compare(frame, "central", "stable").iloc[0]
    assert (comparison["n"], comparison["n_diverged"]) == (0, 3)
    assert np.isnan(comparison["p_value"])


def test_errors_have_no_negative_limits(tmp_path: Path) -> None:
    runs = [
        RunTruth(run_id=f"r{i}", seed=i, steps=40, flows={"central": FlowTruth(distance=d)})
        for i, d in enumerate((0.01, 0.2))
    ]
    row = analysis.summarize(frame_of(tmp_path, runs), metrics=["final_distance"]).iloc[0]
    assert (row["ci_low"], row["ci_method"]) == (0.0, "t")


def test_summary_keeps_types_and_chains(frame: pd.DataFrame) -> None:
    table = analysis.summarize(frame, by="rule").query("metric == 'horizon'")
    assert table["rule"].dtype == "category"
    assert set(table["unit"]) == {"steps"}
    assert table.attrs["units"]["horizon"] == "steps"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: analysis.summarize(f, by=["colour"]), "by: no column 'colour'"),
        (lambda f: analysis.summarize(f, metrics=["beauty"]), "metric must be one of"),
        (lambda f: analysis.compare(f, "rod", "stable"), "no flow 'rod'.*central.*stable"),
        (
            lambda f: analysis.compare(f, "central", "stable", metrics=["horizon"]),
            "only errors can be compared, got 'horizon'",
        ),
    ],
)
def test_bad_arguments(frame: pd.DataFrame, call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(frame)  # type: ignore[operator]


def test_comparison_by_hand(tmp_path: Path) -> None:
    pairs = [(0.01, 0.1), (0.02, 0.1), (0.05, 0.1), (0.2, 0.1), (0.1, 0.1)]
    runs = [
        RunTruth(
            run_id=f"r{i}", seed=i, steps=40,
            flows={"central": FlowTruth(distance=a), "stable": replace(STABLE, distance=b)},
        )
        for i, (a, b) in enumerate(pairs)
    ]  # fmt: skip
    row = analysis.compare(frame_of(tmp_path, runs), "central", "stable", by=[]).iloc[0]
    assert (row["n"], row["wins"], row["ties"]) == (5, 3, 1)
    assert row["win_rate"] == pytest.approx(0.7)  # a tie is half a win
    assert row["median_ratio"] == pytest.approx(0.5)
    assert row["ratio_method"] == "none"
    assert row["p_holm"] == row["p_value"]


def test_comparison_is_antisymmetric(frame: pd.DataFrame) -> None:
    one = analysis.compare(frame, "central", "stable", by=["rule"])
    other = analysis.compare(frame, "stable", "central", by=["rule"])
    np.testing.assert_allclose(one["median_ratio"] * other["median_ratio"], 1.0)
    np.testing.assert_allclose(one["p_value"], other["p_value"])
    assert (one["wins"] + other["wins"] + one["ties"] == one["n"]).all()
    assert (one["n"] + one["n_diverged"] + one["n_failed"] == one["n_runs"]).all()


def test_trend_finds_the_error_growing_with_lr(frame: pd.DataFrame) -> None:
    table = analysis.lr_trend(frame, metrics=["log_loss_error"])
    central = table[table["flow"] == "central"]
    assert (central["tau"] > 0.6).all()
    assert (central["p_holm"] < 0.01).all()
    assert central["slope"].to_numpy() == pytest.approx(np.ones(3), abs=0.5)


def test_covariance_fit_of_a_known_law() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for run in range(12):
        predicted = np.exp(rng.uniform(-8, -2, size=30))
        measured = 2 * predicted**0.8 * np.exp(0.3 * rng.normal(size=30))
        rows += [
            {"run_id": f"r{run}", "rule": "x", "flow": "central", "predicted": p, "measured": m}
            for p, m in zip(predicted, measured, strict=True)
        ]
    points = pd.DataFrame(rows)
    for runs, method in ((12, "jackknife"), (2, "jackknife"), (1, "none")):
        some = points[points["run_id"].isin([f"r{i}" for i in range(runs)])]
        fit = analysis.covariance_fit(some, by=["rule"]).iloc[0]
        slope, intercept = np.polyfit(np.log(some["predicted"]), np.log(some["measured"]), 1)
        assert fit["slope"] == pytest.approx(slope)
        assert intercept != 0
        assert fit["ci_method"] == method
        if method != "none":
            assert fit["slope_low"] < 0.8 < fit["slope_high"]
            assert fit["r2_low"] < fit["r2"] < fit["r2_high"]


def test_intervals_of_500_simulated_sweeps_cover_the_truth() -> None:
    """Errors are positive and skewed, flows share the run's difficulty, a run diverges.

    `tests/benchmarks/analysis_coverage.py` does the same for other numbers of seeds.
    """
    seeds = 12
    rng = np.random.default_rng(seeds)
    sweeps = 500
    hard = np.exp(0.15 * rng.normal(size=(sweeps, seeds)))
    errors = {
        "central": 0.05 * hard * np.exp(0.15 * rng.normal(size=hard.shape)),
        "stable": 0.50 * hard * np.exp(0.15 * rng.normal(size=hard.shape)),
    }
    rows = [
        {
            "run_id": f"{i}-{s}", "workload": f"w{i:03d}", "criterion": "mse", "rule": "rmsprop",
            "lr": 0.1, "seed": s, "flow": flow, "flow_status": "ok", "run_status": "finished",
            "final_distance": value[i, s],
        }
        for flow, value in errors.items()
        for i in range(sweeps)
        for s in range(seeds)
    ]  # fmt: skip
    rows += [
        row | {"run_id": "lost", "run_status": "diverged", "final_distance": 9.0}
        for row in rows[:1]
    ]
    frame = accuracy_frame(rows)
    table = analysis.summarize(frame, by=["workload"], metrics=["final_distance"])
    for flow, scale in (("central", 0.05), ("stable", 0.5)):
        truth = scale * np.exp(0.15**2)
        some = table[table["flow"] == flow]
        share = ((some["ci_low"] <= truth) & (truth <= some["ci_high"])).mean()
        assert 0.92 <= share <= 0.98, (flow, share)
    ratios = analysis.compare(frame, "central", "stable", by=["workload"])
    share = ((ratios["ratio_low"] <= 0.1) & (ratios["ratio_high"] >= 0.1)).mean()
    assert 0.92 <= share <= 0.98, share


@pytest.mark.parametrize("runs", [5, 20])
def test_coverage_of_the_covariance_slope(runs: int) -> None:
    """Points of a run share an error, so that an interval from points would be far too narrow."""
    rng = np.random.default_rng(runs)
    shape = (500, runs, 12)
    x = rng.uniform(-8, -2, size=(500, runs, 1)) + 0.5 * rng.normal(size=shape)
    y = x + 0.3 * rng.normal(size=(500, runs, 1)) + 0.1 * rng.normal(size=shape)
    sweep, run, _ = np.indices(shape)
    points = pd.DataFrame(
        {
            "sweep": sweep.ravel(), "run_id": run.astype(str).ravel(), "flow": "central",
            "predicted": np.exp(x).ravel(), "measured": np.exp(y).ravel(),
        }
    )  # fmt: skip
    fit = analysis.covariance_fit(points, by=["sweep"])
    covered = ((fit["slope_low"] <= 1.0) & (fit["slope_high"] >= 1.0)).mean()
    assert 0.92 <= covered <= 0.98


def test_replaced_data_are_a_cell_and_unknown_ones_are_not() -> None:
    """Seeds on two data sets are not pooled; an unknown one is not taken for another."""
    frame = pd.DataFrame(
        {"workload": "npz", "criterion": "mse", "rule": "gradient_descent", "lr": 0.1}
        | {"workload_options": "{}", "seed": [0, 1, 2], "data": ["one", "one", None]}
    )
    frame.attrs = {"hyperparameters": {"lr": {}}, "configuration": ["workload_options", "data"]}
    base = ["workload", "criterion", "rule", "lr"]
    assert cell_keys(frame) == base
    frame["data"] = ["one", "other", None]
    assert cell_keys(frame) == [*base, "data"]
    frame["workload_options"] = ["{}", '{"path": "other.npz"}', "{}"]
    assert cell_keys(frame) == [*base, "workload_options"]
