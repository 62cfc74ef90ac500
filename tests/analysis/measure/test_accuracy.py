"""Metrics of runs whose errors are known, and of runs that went wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from synthetic import CENTRAL, STABLE, FlowTruth, RunTruth, write_sweep

import analysis
from analysis.measure import smoothed_metrics, total, variance_series
from analysis.read import common_steps

CLOSE = {"rel": 1e-3, "abs": 1e-4}


def accuracy_of(tmp_path: Path, *runs: RunTruth, **options: object) -> pd.DataFrame:
    results = analysis.load(write_sweep(tmp_path, runs))
    return analysis.accuracy(results, **options).set_index(["run_id", "flow"])  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["gradient_descent", "rmsprop"])
def test_every_metric_is_the_error_put_in(tmp_path: Path, rule: str) -> None:
    frame = accuracy_of(tmp_path, RunTruth(run_id="a", rule=rule))
    expected = {
        "final_distance": 0.02, "mean_distance": 0.02, "edge_distance": 0.02,
        "final_distance_midpoint": 0.01, "mean_distance_midpoint": 0.01,
        "edge_distance_midpoint": 0.01, "ratio_to_stable": 0.08, "ratio_to_stable_midpoint": 0.05,
        "log_loss_error": 0.01, "sharpness_error": 0.04, "grad_norm_error": 0.03,
        "nu_error": 0.05 if rule == "rmsprop" else np.nan, "variance_error": 0.25,
        "covariance_slope": 1.0, "covariance_r2": 1.0, "covariance_points": 6.0,
        "output_error": 0.1,
        "train_accuracy_error": 0.02, "test_accuracy_error": 0.03, "test_loss_error": 0.0,
        "edge_fraction": 1.0, "mean_num_critical": 2.0, "near_edge_steps": 441.0,
        "near_edge_steps_optimizer": 441.0, "unconverged_fraction": 0.0, "doubtful_fraction": 0.0,
    }  # fmt: skip
    row = frame.loc[("a", "central")]
    got = {name: float(row[name]) for name in expected}
    assert got == pytest.approx(expected, nan_ok=True, **CLOSE)


def test_the_peak_is_the_optimizers_own_largest_sharpness(tmp_path: Path) -> None:
    frame = accuracy_of(tmp_path, RunTruth(run_id="a"))
    steps = analysis.load(next(tmp_path.rglob("sweep.json")).parent).run_steps("a")
    own = steps.loc[steps["process"] == "discrete", "effective_sharpness"]
    assert own.max() > own.mean() > 0  # or else a mean would do
    assert frame["peak_sharpness"].tolist() == [own.max()] * len(frame)


def test_the_stable_flow_predicts_no_variance(tmp_path: Path) -> None:
    row = accuracy_of(tmp_path, RunTruth(run_id="a")).loc[("a", "stable")]
    assert row["final_distance"] == pytest.approx(0.25)
    assert row["log_loss_error"] == pytest.approx(0.3, **CLOSE)
    assert row["sharpness_error"] == pytest.approx(1.5, **CLOSE)
    assert pd.isna(row["variance_error"])
    assert row["ratio_to_stable"] == 1.0


def test_horizon_observed_and_censored(tmp_path: Path) -> None:
    late = FlowTruth(distance=0.06, distance_from=123)
    frame = accuracy_of(
        tmp_path, RunTruth(run_id="a", flows={"central": late, "stable": STABLE}), tolerance=0.05
    )
    assert tuple(frame.loc[("a", "central"), ["horizon", "horizon_observed"]]) == (123, True)
    assert tuple(frame.loc[("a", "stable"), ["horizon", "horizon_observed"]]) == (1, True)
    # The midpoints are half as far from the central flow, so 5% is never reached.
    lasting = ["horizon_lasting", "horizon_lasting_observed"]
    assert tuple(frame.loc[("a", "central"), lasting]) == (123, True)
    names = ["horizon_midpoint", "horizon_midpoint_observed"]
    assert tuple(frame.loc[("a", "central"), names]) == (600, False)
    assert tuple(frame.loc[("a", "stable"), names]) == (1, True)
    wide = accuracy_of(tmp_path / "wide", RunTruth(run_id="a"), tolerance=0.5)
    assert tuple(wide.loc[("a", "central"), ["horizon", "horizon_observed"]]) == (600, False)


def test_an_early_excursion_does_not_end_the_lasting_horizon(tmp_path: Path) -> None:
    early = FlowTruth(distance=0.04, excursion=(3, 20))
    stable = replace(STABLE, excursion=(0, 0), distance_from=200)
    frame = accuracy_of(tmp_path, RunTruth(run_id="a", flows={"central": early, "stable": stable}))
    names = [f"{name}{end}" for name in ("horizon", "horizon_lasting") for end in ("", "_observed")]
    assert frame.loc[("a", "central"), names].tolist() == [3, True, 600, False]
    assert frame.loc[("a", "stable"), names].tolist() == [200, True, 200, True]
    table = analysis.summarize(frame.reset_index(), metrics=["horizon", "horizon_lasting"])
    medians = table.set_index(["flow", "metric"])["median"]
    assert medians.loc[("central", "horizon")] < medians.loc[("stable", "horizon")]
    assert medians.loc[("central", "horizon_lasting")] == np.inf


def test_fraction_at_the_edge(tmp_path: Path) -> None:
    # The average of a jump from 1 to 2 passes 1.95 a little after the jump, at 1.645 bandwidths.
    row = accuracy_of(tmp_path, RunTruth(run_id="a", steps=1000, edge_from=500)).loc[
        ("a", "central")
    ]
    entered = 500 + 1.645 * 20
    assert row["edge_fraction"] == pytest.approx((920 - entered) / 841, abs=2 / 841)


def test_time_mean_at_the_edge_uses_only_those_steps(tmp_path: Path) -> None:
    flows = {"central": FlowTruth(distance=0.04, distance_from=480)}
    run = RunTruth(run_id="a", steps=1000, edge_from=500, flows=flows)
    row = accuracy_of(tmp_path, run).loc[("a", "central")]
    assert row["edge_distance"] == pytest.approx(0.04)
    assert row["mean_distance"] == pytest.approx((479 * 0.01 + 521 * 0.04) / 1000)
    assert pd.isna(row["ratio_to_stable"])


def test_the_edge_is_where_the_average_is(tmp_path: Path) -> None:
    # The sharpness itself is below 1.95 at every other step, and known beyond the last average.
    flows = {"central": FlowTruth(distance=0.04, distance_from=700)}
    run = RunTruth(run_id="a", steps=1000, edge_from=500, flows=flows)
    row = accuracy_of(tmp_path, run).loc[("a", "central")]
    before, after = 700 - 533, 920 - 699
    expected = (0.01 * before + 0.04 * after) / (before + after)
    assert row["edge_distance"] == pytest.approx(expected, rel=0.01)


def test_flow_and_optimizer_are_near_the_edge_on_the_same_steps(tmp_path: Path) -> None:
    flows = {"central": FlowTruth(sharpness=0.0), "stable": FlowTruth(sharpness=0.0, stop=300)}
    frame = accuracy_of(tmp_path, RunTruth(run_id="a", flows=flows))
    assert frame.loc[("a", "central"), "near_edge_steps"] == 441
    assert set(frame["near_edge_steps_optimizer"]) == {441}
    # Not after it stopped, nor where the window of its own average reaches past its end.
    assert frame.loc[("a", "stable"), "near_edge_steps"] == 300 - 160
    short = accuracy_of(tmp_path / "short", RunTruth(run_id="a", steps=150, flows=flows))
    assert short[["near_edge_steps", "near_edge_steps_optimizer"]].isna().all(axis=None)


def test_steps_that_did_not_converge_are_counted(tmp_path: Path) -> None:
    trouble = ("eig_unconverged", "sdcp_unconverged", "sdcp_unconverged")
    flows = {"central": FlowTruth(trouble=trouble)}
    row = accuracy_of(tmp_path, RunTruth(run_id="a", steps=99, flows=flows)).iloc[0]
    assert row["unconverged_fraction"] == pytest.approx(0.03)


def test_doubtful_steps_are_counted_and_left_out(tmp_path: Path) -> None:
    doubts = ("off_the_edge", "stiff,contradicted", "stiff")
    trouble = ("ok", "ok", "ok", "eig_unconverged")  # as of before there were doubts
    flows = {"central": FlowTruth(doubts=doubts, trouble=trouble), "stable": FlowTruth()}
    folder = write_sweep(tmp_path, [RunTruth(run_id="a", steps=49, flows=flows)])
    frame = analysis.accuracy(analysis.load(folder))
    share = frame.set_index("flow")["doubtful_fraction"]
    assert share.to_dict() == {"central": pytest.approx(0.08), "stable": 0.0}
    assert list(analysis.without_doubtful(frame)["flow"]) == ["stable"]
    assert len(analysis.without_doubtful(frame, above=0.08)) == 2
    assert len(analysis.without_doubtful(frame.drop(columns="doubtful_fraction"))) == 2
    counts = analysis.summarize(frame, metrics="final_distance").set_index("flow")["n_doubtful"]
    assert counts.to_dict() == {"central": 1, "stable": 0}
    rows = analysis.load(folder, where=[("doubt", "==", None)]).steps
    assert rows["process"].value_counts()["central"] == 47


def test_a_folder_from_before_there_were_doubts(tmp_path: Path) -> None:
    run = RunTruth(
        run_id="a", steps=49, flows={"central": FlowTruth(trouble=("sdcp_unconverged",))}
    )
    folder = write_sweep(tmp_path, [run], parts=1)
    for file in folder.rglob("*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.drop_columns([n for n in table.column_names if "doubt" in n]), file)
    (share,) = analysis.accuracy(analysis.load(folder))["doubtful_fraction"]
    assert share == pytest.approx(0.02)


def test_a_loss_without_derivatives_is_no_failure_of_a_flow(tmp_path: Path) -> None:
    lost = {"central": FlowTruth(stop=5, ending="diverged")}
    runs = [
        RunTruth(run_id="a", seed=0, steps=49, flows=lost),
        RunTruth(run_id="b", seed=1, steps=49, flows=lost, status="undefined"),
    ]
    frame = analysis.accuracy(analysis.load(write_sweep(tmp_path, runs)))
    row = analysis.summarize(frame, metrics="final_distance").iloc[0]
    counts = row[["n_runs", "n", "n_loss_undefined", "n_flow_diverged", "n_diverged"]]
    assert counts.tolist() == [2, 1, 1, 1, 0]


def test_rows_need_not_be_in_order(tmp_path: Path) -> None:
    run = RunTruth(run_id="a", flows={"central": FlowTruth(distance=0.06, distance_from=123)})
    folder = write_sweep(tmp_path, [run], parts=1)
    expected = analysis.accuracy(analysis.load(folder))
    file = folder / "steps" / "a" / "part-00000000.parquet"
    table = pq.read_table(file)
    pq.write_table(table.take(np.random.default_rng(0).permutation(len(table))), file)
    pd.testing.assert_frame_equal(analysis.accuracy(analysis.load(folder)), expected)


def test_common_steps() -> None:
    one, other = np.array([0, 2, 4]), np.array([0, 1, 4])
    steps, here, there = common_steps(one, other)
    assert (steps.tolist(), one[here].tolist(), other[there].tolist()) == ([0, 4],) * 3
    steps, here, there = common_steps(one, one)
    assert one[here].tolist() == one[there].tolist() == steps.tolist() == [0, 2, 4]


def test_a_direction_without_a_measurement_is_not_predicted_either() -> None:
    n = 60
    displacement = np.ones((n, 2))
    displacement[:30, 1] = np.nan
    columns = {
        "step": np.arange(n), "sigma_eigs": np.full((n, 2), 2.0), "displacement_sq": displacement
    }  # fmt: skip
    predicted, measured = variance_series(columns, 1.0)
    np.testing.assert_equal(np.isnan(predicted), np.isnan(measured))
    assert total(predicted)[10] == 2.0
    assert total(predicted)[50] == 4.0


def test_an_optimizer_that_left_nothing_to_compare_with(tmp_path: Path) -> None:
    frame = accuracy_of(tmp_path, RunTruth(run_id="a", steps=0, status="diverged"))
    assert frame["flow_status"].tolist() == ["no_data", "no_data"]
    assert frame["last_step"].isna().all()


def test_a_stopped_flow_is_scored_up_to_its_stop(tmp_path: Path) -> None:
    flows = {"central": CENTRAL, "stable": replace(STABLE, distance=0.04, stop=150)}
    frame = accuracy_of(tmp_path, RunTruth(run_id="a", flows=flows))
    stable, central = frame.loc[("a", "stable")], frame.loc[("a", "central")]
    assert (stable["flow_status"], stable["last_step"]) == ("stopped", 149)
    assert (stable["horizon"], stable["horizon_observed"]) == (149, True)
    assert (stable["horizon_lasting"], stable["horizon_lasting_observed"]) == (149, True)
    # Both distances are taken at step 149: 0.02 and 0.04 of the same path.
    assert central["ratio_to_stable"] == pytest.approx(0.5)
    assert central["last_step"] == 600


def test_a_diverged_flow_is_scored_up_to_there(tmp_path: Path) -> None:
    wrong = FlowTruth(distance=0.04, stop=400, ending="diverged")
    frame = accuracy_of(tmp_path, RunTruth(run_id="a", flows={"central": wrong, "stable": STABLE}))
    row = frame.loc[("a", "central")]
    assert (row["run_status"], row["flow_status"]) == ("finished", "diverged")
    assert (row["last_step"], row["horizon"], row["horizon_observed"]) == (399, 399, True)
    assert bool(row["horizon_midpoint_observed"])
    assert row["log_loss_error"] == pytest.approx(0.01, **CLOSE)  # not the infinite last row's
    assert frame.loc[("a", "stable"), "flow_status"] == "ok"


def test_a_flow_that_ended_between_two_records_has_ended(tmp_path: Path) -> None:
    silent = FlowTruth(distance=0.04, stop=399, ending="ok")
    run = RunTruth(run_id="a", record_every=3, flows={"central": silent, "stable": STABLE})
    frame = accuracy_of(tmp_path, run)
    row = frame.loc[("a", "central")]
    assert (row["flow_status"], row["last_step"]) == ("stopped", 399)
    assert (row["horizon"], row["horizon_observed"]) == (399, True)
    assert frame.loc[("a", "stable"), "flow_status"] == "ok"


def test_a_diverged_run_keeps_its_status(tmp_path: Path) -> None:
    run = RunTruth(run_id="a", steps=120, status="diverged", status_detail="loss not finite")
    frame = accuracy_of(tmp_path, run)
    assert set(frame["run_status"]) == {"diverged"}
    assert frame.loc[("a", "central"), "last_step"] == 119


@pytest.mark.parametrize("overflow", [np.inf, np.nan])
def test_an_overflowed_last_row_changes_nothing_else(tmp_path: Path, overflow: float) -> None:
    """A run that diverged at step 300 scores like one that was told to end at step 299."""
    lost = RunTruth(run_id="a", steps=300, status="diverged", overflow=overflow)
    frame = accuracy_of(tmp_path, lost)
    names = [m.name for m in analysis.METRICS]
    expected = accuracy_of(tmp_path / "x", RunTruth(run_id="a", steps=299))
    assert np.isfinite(frame[names].to_numpy()[~expected[names].isna().to_numpy()]).all()
    same = [n for n in names if n != "mean_num_critical"]  # synthetic: it depends on `steps`
    pd.testing.assert_frame_equal(frame[same], expected[same])

    fine = [RunTruth(run_id=f"b{i}", seed=i, steps=300) for i in (1, 2)]
    both = analysis.accuracy(analysis.load(write_sweep(tmp_path / "both", [lost, *fine])))
    alone = analysis.accuracy(analysis.load(write_sweep(tmp_path / "alone", fine)))
    statistics = ["n", "mean", "median", "sd", "ci_low", "ci_high", "ci_method"]
    pd.testing.assert_frame_equal(
        analysis.summarize(both)[statistics], analysis.summarize(alone)[statistics]
    )
    assert set(analysis.summarize(both)["n_diverged"]) == {1}


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_one_infinite_or_missing_value_does_not_spoil_a_mean(tmp_path: Path, value: float) -> None:
    folder = write_sweep(tmp_path, [RunTruth(run_id="a", rule="rmsprop")], parts=1)
    file = folder / "steps" / "a" / "part-00000000.parquet"
    table = pq.read_table(file, partitioning=None)
    at_300 = table["step"].to_numpy() == 300
    for i, field in enumerate(table.schema):
        if field.type == pa.float64() and table[i].null_count < len(table):
            numbers = table[i].to_numpy()
            numbers = np.where(at_300 & ~np.isnan(numbers), value, numbers)
            table = table.set_column(i, field, pa.array(numbers, from_pandas=True))
    pq.write_table(table, file)
    results = analysis.load(folder)
    frame = analysis.accuracy(results).set_index("flow")
    for name, expected in (
        ("final_distance", 0.02), ("mean_distance", 0.02), ("log_loss_error", 0.01),
        ("sharpness_error", 0.04), ("grad_norm_error", 0.03), ("nu_error", 0.05),
        ("output_error", 0.1), ("test_loss_error", 0.0), ("train_accuracy_error", 0.02),
    ):  # fmt: skip
        assert frame.loc["central", name] == pytest.approx(expected, **CLOSE), name
    assert set(frame["flow_status"]) == {"ok"}
    for plot in (analysis.plot_loss, analysis.plot_sharpness, analysis.plot_distance):
        assert plot(results.run_steps("a")).lines


def test_a_short_run_has_no_time_averages(tmp_path: Path) -> None:
    row = accuracy_of(tmp_path, RunTruth(run_id="a", steps=60)).loc[("a", "central")]
    assert row["final_distance"] == pytest.approx(0.02)
    for name in ("log_loss_error", "sharpness_error", "edge_fraction", "variance_error"):
        assert pd.isna(row[name])


def test_sparse_records(tmp_path: Path) -> None:
    # Records every third step see both signs of the oscillation; every second would see only one.
    row = accuracy_of(tmp_path, RunTruth(run_id="a", steps=600, record_every=3)).loc[
        ("a", "central")
    ]
    assert row["log_loss_error"] == pytest.approx(0.01, abs=1e-3)
    # Averages exist from step 81 to 519: the window reaches 27 records to each side.
    assert row["near_edge_steps"] == row["near_edge_steps_optimizer"] == 3 * (201 - 2 * 27)


def test_a_run_without_steps_is_counted(tmp_path: Path) -> None:
    import shutil

    folder = write_sweep(tmp_path, [RunTruth(run_id="a"), RunTruth(run_id="b", seed=1)])
    shutil.rmtree(folder / "steps" / "b")
    frame = analysis.accuracy(analysis.load(folder)).set_index(["run_id", "flow"])
    assert frame.loc["b", "flow_status"].tolist() == ["no_data", "no_data"]
    assert frame.loc["b", "final_distance"].isna().all()


@pytest.mark.parametrize(
    "where", [{"process": "central"}, [("process", "!=", "discrete")], {"process": ["stable"]}]
)
def test_flows_without_the_optimizer_are_no_silent_nothing(
    example_sweep: Path, where: object
) -> None:
    results = analysis.load(example_sweep, where=where)  # type: ignore[arg-type]
    for call in (analysis.accuracy, analysis.study, analysis.bandwidth_sensitivity):
        with pytest.raises(analysis.ResultsError, match="leaves out the process 'discrete'") as e:
            call(results)
        assert "\n" not in str(e.value)


def test_a_filter_that_keeps_the_optimizer_is_fine(example_sweep: Path) -> None:
    results = analysis.load(example_sweep, where={"process": ["discrete", "central"]})
    frame = analysis.accuracy(results)
    assert set(frame["flow"]) == {"central"}  # the stable flow is left out on purpose, not missing
    assert set(frame["flow_status"]) == {"ok"}


def test_runs_and_flows_that_yield_nothing_are_counted(tmp_path: Path) -> None:
    runs = [RunTruth(run_id=name, seed=i, steps=60) for i, name in enumerate("abc")]
    folder = write_sweep(tmp_path, runs, parts=1)
    for run_id, lost in (("b", "discrete"), ("c", "stable")):
        file = folder / "steps" / run_id / "part-00000000.parquet"
        table = pq.read_table(file, partitioning=None)
        pq.write_table(table.filter(pc.field("process") != lost), file)
    results = analysis.load(folder)
    frame = analysis.accuracy(results)
    pd.testing.assert_frame_equal(analysis.study(results).accuracy, frame)
    status = frame.set_index(["run_id", "flow"])["flow_status"]
    assert status.loc["a"].to_dict() == {"central": "ok", "stable": "ok"}
    assert status.loc["b"].to_dict() == {"central": "no_data", "stable": "no_data"}
    assert status.loc["c"].to_dict() == {"central": "ok", "stable": "no_data"}
    nothing = analysis.accuracy(analysis.load(folder, where=[("step", "<", 0)]))
    assert nothing["flow_status"].tolist() == ["no_data"] * 6
    assert analysis.summarize(frame)["n_runs"].unique().tolist() == [3]


def test_flows_can_be_chosen(tmp_path: Path) -> None:
    frame = accuracy_of(tmp_path, RunTruth(run_id="a"), flows=["central"])
    assert list(frame.index) == [("a", "central")]


def test_frame_keeps_units_and_categories(tmp_path: Path) -> None:
    frame = accuracy_of(tmp_path, RunTruth(run_id="a")).reset_index()
    assert frame.attrs["units"]["horizon"] == frame.attrs["units"]["horizon_midpoint"] == "steps"
    assert frame["rule"].dtype == "category"
    assert frame["flow"].dtype == "category"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"bandwidth": 0}, "bandwidth must be a positive"), ({"tolerance": -1}, "tolerance must be")],
)
def test_bad_options(example_sweep: Path, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        analysis.accuracy(analysis.load(example_sweep), **options)  # type: ignore[arg-type]


def test_bandwidth_sensitivity_of_a_slow_drift(example_sweep: Path) -> None:
    table = analysis.bandwidth_sensitivity(analysis.load(example_sweep), bandwidths=(10, 20, 40))
    assert list(table.columns) == [10.0, 20.0, 40.0, "spread"]
    assert table.loc[("central", "variance_error"), 10.0] == pytest.approx(0.25, **CLOSE)
    # A wider window sees fewer steps; an error of zero has no relative spread.
    metric = table.index.get_level_values("metric")
    assert set(metric) == {m.name for m in smoothed_metrics()}
    counts = ["near_edge_steps", "near_edge_steps_optimizer"]
    constant = ~metric.isin([*counts, "test_loss_error"])
    assert (table.loc[constant, "spread"] < 1e-3).all()
    for name in counts:
        steps = table.loc[("central", name)]
        assert steps.tolist()[:3] == [601 - 80, 601 - 160, 601 - 320]
        assert steps["spread"] == pytest.approx(521 / 281 - 1)
