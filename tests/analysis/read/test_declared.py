"""Columns and processes that this package has never heard of, as files declare them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic import CENTRAL, STABLE, FlowTruth, RunTruth, write_sweep

import analysis
from analysis import ResultsError, load
from analysis.__main__ import main
from analysis.draw import FigureSet, flow_styles, panels
from analysis.infer import cell_keys, panel_keys, swept
from analysis.read.declared import first_values
from cflows_ray.rules import hyperparameter_columns

MOMENTUM = {"role": "hyperparameter", "symbol": "β₁", "label": "momentum β₁", "meaning": "decay"}


def add_column(file: Path, name: str, value: object, **words: str) -> None:
    """Give all rows of a file a further column."""
    table = pq.read_table(file, partitioning=None)
    values = pa.array([value] * len(table))
    pq.write_table(table.append_column(pa.field(name, values.type, metadata=words), values), file)


def sweep_of(root: Path, momenta: list[float | None], *, seeds: int = 2, **words: str) -> Path:
    """Write a sweep of one rule at several momenta; runs without are from an older file."""
    runs = []
    for i, _ in enumerate(momenta):
        for seed in range(seeds):
            central = replace(CENTRAL, distance=0.02 * (1 + i) * (1 + 0.1 * seed))
            runs.append(RunTruth(run_id=f"m{i}s{seed}", rule="toy", seed=seed, steps=200,
                                 flows={"central": central, "stable": STABLE}))  # fmt: skip
    folder = write_sweep(root, runs)
    for i, momentum in enumerate(momenta):
        for seed in range(seeds):
            if momentum is not None:
                file = folder / "runs" / f"m{i}s{seed}.parquet"
                add_column(file, "momentum", momentum, **(words or MOMENTUM))
    return folder


def test_a_further_hyperparameter_is_grouped_by(tmp_path: Path) -> None:
    results = load(sweep_of(tmp_path, [0.5, 0.9]))
    assert results.runs["momentum"].tolist() == [0.5, 0.9] * 2
    frame = analysis.accuracy(results)
    assert list(frame.columns)[10:13] == ["schedule", "momentum", "flows"]
    assert cell_keys(frame) == ["workload", "criterion", "rule", "lr", "momentum"]
    assert panel_keys(frame, "momentum") == ["workload", "criterion", "rule", "lr"]
    assert swept(frame) == ["momentum"]
    table = analysis.summarize(frame, metrics="final_distance")
    central = table[table["flow"] == "central"]
    assert central["momentum"].tolist() == [0.5, 0.9]
    assert central["mean"].tolist() == pytest.approx([0.021, 0.042])
    assert analysis.compare(frame, "central", "stable")["momentum"].tolist() == [0.5, 0.9]
    points = analysis.covariance_points(results)
    assert set(analysis.covariance_fit(points)["momentum"]) == {0.5, 0.9}
    tau = analysis.trends(frame, "momentum", "final_distance").set_index("flow")["tau"]
    assert tau["central"] == pytest.approx(0.816, abs=1e-3)  # 4 of 6 pairs, 2 tied in x


def test_files_may_differ_in_their_columns(tmp_path: Path) -> None:
    """An absent column is null, and null is a value that runs are told apart by."""
    folder = sweep_of(tmp_path, [None, 1, 0.9])
    runs = load(folder).runs.set_index("run_id")["momentum"]
    assert runs.dtype == np.float64
    assert runs[["m1s0", "m2s0"]].tolist() == [1.0, 0.9]
    assert runs[["m0s0", "m0s1"]].isna().all()
    frame = analysis.accuracy(folder)
    assert analysis.summarize(frame, metrics="nu_error")["momentum"].isna().sum() == 2
    assert len(analysis.compare(frame, "central", "stable")) == 3
    assert set(load(folder, where=[("momentum", "<", 1.0)]).runs["momentum"]) == {0.9}
    with pytest.raises(ResultsError, match="momentum must be compared with a number, got 'x'"):
        load(folder, where={"momentum": "x"})
    with pytest.raises(ResultsError, match="did you mean 'momentum'"):
        load(folder, where={"momentun": 1.0})
    add_column(folder / "runs" / "m0s0.parquet", "momentum", "much")
    with pytest.raises(ResultsError, match=r"column 'momentum' is (string|double) in some"):
        load(folder)


def test_runs_from_before_a_hyperparameter_are_in_the_cell_of_what_held(tmp_path: Path) -> None:
    """Files of the package as it was and as it is, of one rule that has been given a momentum."""
    runs = [
        RunTruth(run_id=f"{rule[0]}{seed}", rule=rule, seed=seed, steps=40)
        for rule in ("gradient_descent", "foreign")
        for seed in (0, 1)
    ]
    folder = write_sweep(tmp_path, runs)
    fields = {column.name: column for column in hyperparameter_columns()}
    for run in runs[1::2]:
        file = folder / "runs" / f"{run.run_id}.parquet"
        table = pq.read_table(file)
        for name, value in (("momentum", 0.0), ("nesterov", False)):
            column = fields[name]
            kind = pa.field(name, column.type, metadata=column.metadata)
            table = table.append_column(kind, pa.array([value], column.type))
        pq.write_table(table, file)
    found = load(folder).runs.set_index("run_id")
    assert found["momentum"][["g0", "g1"]].tolist() == [0.0, 0.0]
    assert found["nesterov"][["g0", "g1"]].tolist() == [False, False]
    assert found["momentum"].isna().to_dict()["f0"]  # of this rule nothing is known
    frame = analysis.accuracy(folder).query("rule == 'gradient_descent'")
    assert cell_keys(frame) == ["workload", "criterion", "rule", "lr"]
    table = analysis.summarize(frame, metrics="final_distance")
    assert table["n"].tolist() == [2, 2]
    assert set(load(folder, where={"momentum": 0.0}).runs["run_id"]) == {"g0", "g1", "f1"}


@pytest.mark.parametrize("said", ["", "null", "[1]", "{", '{"gradient_descent": "much"}'])
def test_what_a_foreign_file_says_of_before_is_no_error(said: str) -> None:
    assert first_values(pa.field("momentum", pa.float64(), metadata={"absent": said})) == {}


def test_a_rule_without_a_hyperparameter_need_not_have_the_column(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, [RunTruth(run_id="a", steps=40)])
    file = folder / "runs" / "a.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["beta2", "eps", "bias_correction"]), file)
    assert "eps" not in analysis.accuracy(folder)
    both = write_sweep(tmp_path, [RunTruth(run_id="b", steps=40, rule="rmsprop")], name="b").parent
    assert load(both).runs.set_index("run_id")["eps"].isna().to_dict() == {"a": True, "b": False}
    pq.write_table(pq.read_table(file).drop_columns(["lr"]), file)
    with pytest.raises(ResultsError, match="needs a column 'lr'"):
        load(folder)


def test_columns_of_steps_that_were_added_since_may_be_absent(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, [RunTruth(run_id="a", rule="rmsprop")])
    whole = analysis.accuracy(folder)
    for file in folder.glob("steps/*/*.parquet"):
        table = pq.read_table(file, partitioning=None)
        pq.write_table(table.drop_columns(["nu_rel_error", "test_loss", "sigma_eigs"]), file)
    frame = analysis.accuracy(folder)
    lost = ["nu_error", "test_loss_error", "variance_error", "covariance_slope", "covariance_r2"]
    assert frame[lost].isna().all(axis=None)
    assert whole.loc[whole["flow"] == "central", lost].notna().all(axis=None)
    others = [m.name for m in analysis.METRICS if m.name not in lost]
    pd.testing.assert_frame_equal(frame[others], whole[others])


def test_a_filter_takes_a_column_of_steps_that_was_added_since_for_null(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, [RunTruth(run_id="a", steps=40)])
    whole = len(load(folder).steps)
    for file in folder.glob("steps/*/*.parquet"):
        pq.write_table(pq.read_table(file, partitioning=None).drop_columns(["doubt"]), file)
    assert len(load(folder, where=[("doubt", "==", None)]).steps) == whole > 0
    assert len(load(folder, where=[("doubt", "!=", None)]).steps) == 0


def test_a_result_is_no_configuration(tmp_path: Path) -> None:
    for name, words in (("one", {"role": "result"}), ("two", {"unit": "J"})):
        frame = analysis.accuracy(sweep_of(tmp_path / name, [0.5, 0.9], **words))
        assert "momentum" not in frame
        assert cell_keys(frame) == ["workload", "criterion", "rule", "lr"]


def test_configuration_that_is_no_hyperparameter(tmp_path: Path) -> None:
    frame = analysis.accuracy(sweep_of(tmp_path, [2.0, 3.0], role="configuration"))
    assert cell_keys(frame)[-1] == "momentum"
    assert swept(frame) == []


def test_a_hyperparameter_that_goes_with_the_learning_rate_is_not_pooled(tmp_path: Path) -> None:
    runs = [
        RunTruth(run_id=f"{lr}{seed}", rule="rmsprop", lr=lr, beta2=beta2, seed=seed, steps=40)
        for lr, beta2 in ((0.01, 0.9), (0.02, 0.99))
        for seed in (0, 1)
    ]
    frame = analysis.accuracy(write_sweep(tmp_path, runs))
    assert panel_keys(frame) == ["workload", "criterion", "rule", "beta2"]
    assert len(analysis.compare(frame, "central", "stable")) == 2


@pytest.mark.parametrize("words", [{}, {"role": "hyperparameter"}])
def test_labels_are_the_declared_ones(tmp_path: Path, words: dict[str, str]) -> None:
    frame = analysis.accuracy(sweep_of(tmp_path, [0.5, 0.9], **words))
    ax = analysis.plot_accuracy(frame, x="momentum")
    assert ax.get_xlabel() == ("momentum" if words else "momentum β₁")
    ticks = [label.get_text() for label in ax.get_xticklabels()]
    assert ticks == ["0.5", "0.9"]
    title = analysis.draw.run_title(frame, "m0s1")
    assert title == f"toy, {'momentum' if words else 'β₁'} 0.5, lr 0.01, seed 1"


def test_the_report_draws_every_hyperparameter_that_varies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sweep_of(tmp_path, [0.5, 0.9], seeds=3)
    assert main([str(folder), "--format", "csv"]) == 0
    assert "toy · momentum=0.5" in capsys.readouterr().out
    page = (folder / "report" / "report.html").read_text()
    assert "Accuracy against momentum β₁</h2>" in page
    assert "Does the error rise with the momentum β₁?" in page
    assert "<dt>momentum</dt><dd>decay</dd>" in page
    assert (folder / "report" / "figures" / "momentum-digits_mlp-mse-toy.png").exists()
    assert (folder / "report" / "tables" / "trend_momentum.csv").exists()


def with_processes(folder: Path, processes: dict[str, object]) -> None:
    """Let all files of steps declare processes."""
    for file in folder.glob("steps/*/*.parquet"):
        table = pq.read_table(file, partitioning=None)
        metadata = {**(table.schema.metadata or {}),
                    b"cflows_ray.processes": json.dumps(processes).encode()}  # fmt: skip
        pq.write_table(table.replace_schema_metadata(metadata), file)


def flows_sweep(root: Path) -> Path:
    flows = {"rod": replace(CENTRAL, distance=0.01), "edge": FlowTruth(), "stable": STABLE}
    runs = [RunTruth(run_id=f"r{i}", seed=i, steps=200, flows=flows) for i in (0, 1)]
    return write_sweep(root, runs)


def test_flows_without_central_are_scored_drawn_and_compared(tmp_path: Path) -> None:
    folder = flows_sweep(tmp_path)
    results = load(folder)
    frame = analysis.accuracy(results)
    assert sorted(set(frame["flow"])) == ["edge", "rod", "stable"]
    styles = flow_styles(frame)
    assert (styles["rod"].label, styles["stable"].label) == ("rod flow", "stable flow")
    assert len({style.colour for style in styles.values()}) == len(styles) == 4  # and central's
    few = flow_styles(frame[frame["flow"] == "rod"])
    assert few["rod"] == styles["rod"]
    for plot in (analysis.plot_loss, analysis.plot_distance, analysis.plot_variance):
        text = [t.get_text() for t in plot(results.run_steps("r0")).get_legend().get_texts()]
        assert any(words.startswith("rod") for words in text)
    assert main([str(folder), "--format", "csv"]) == 0
    page = (folder / "report" / "report.html").read_text()
    assert "edge against rod" in page  # without central, the first that is not the reference
    assert "edge against stable" in page
    tables = {file.name for file in (folder / "report" / "tables").iterdir()}
    assert {"comparison.csv", "comparison_rod.csv"} <= tables


def test_declared_processes_have_their_labels(tmp_path: Path) -> None:
    folder = flows_sweep(tmp_path)
    with_processes(folder, {"rod": {"label": "rod flow"}, "edge": {"predicts": False}})
    results = load(folder)
    frame = analysis.accuracy(results)
    assert sorted(set(frame["flow"])) == ["rod", "stable"]  # edge is measured against
    ax = analysis.plot_accuracy(frame)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["rod flow", "stable flow"]
    (panel,) = panels(frame, panel_keys(frame))
    ax = FigureSet(tmp_path).horizons([panel]).axes[0]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        "rod flow, 2 runs", "stable flow, 2 runs",
    ]  # fmt: skip
    legend = analysis.plot_loss(results.run_steps("r0")).get_legend().get_texts()
    assert "edge" not in " ".join(text.get_text() for text in legend)
    for words in ("{", "[1]", '{"rod": 3}'):
        for file in folder.glob("steps/*/*.parquet"):
            table = pq.read_table(file, partitioning=None)
            metadata = {**(table.schema.metadata or {}), b"cflows_ray.processes": words.encode()}
            pq.write_table(table.replace_schema_metadata(metadata), file)
        assert set(analysis.accuracy(folder)["flow"]) == {"edge", "rod", "stable"}


def test_further_columns_of_steps(tmp_path: Path) -> None:
    folder = write_sweep(
        tmp_path, [RunTruth(run_id=n, seed=i, steps=60) for i, n in enumerate("ab")]
    )
    for file in (folder / "steps" / "a").iterdir():
        add_column(file, "toy", 0.5, unit="toys")
    results = load(folder)
    assert results.steps.groupby("run_id", observed=True)["toy"].mean().to_dict()["a"] == 0.5
    assert results.steps.loc[results.steps["run_id"] == "b", "toy"].isna().all()
    assert results.steps.attrs["units"]["toy"] == "toys"
    assert list(load(folder, columns=["toy"]).steps.columns) == ["run_id", "step", "process", "toy"]
    one = load(folder, where=[("toy", ">", 0.1), ("process", "==", "central")])
    assert set(one.steps["run_id"]) == {"a"}
