"""Declarations: every metric reads what it says, and one from outside is in every table."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import example_runs, study_runs, write_sweep

import analysis
from analysis import Metric, SideBySide
from analysis.__main__ import main
from analysis.measure import all_metrics
from analysis.measure.scoring import score
from analysis.measure.side_by_side import Scoring
from analysis.report import accuracy_text
from cflows_ray.registry import Registry


@analysis.metric(
    label="largest loss gap", unit="loss", head="toy gap", reads=("train_loss",),
    shown_in=("summary", "comparison", "trend"),
)  # fmt: skip
def toy_gap(run: SideBySide) -> float:
    """Largest |flow's loss - optimizer's loss| over all steps.

    Not part of the meaning.
    """
    return float(np.nanmax(np.abs(run.flow("train_loss") - run.optimizer("train_loss"))))


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Metric:
    """Register a toy metric for one test, in a copy of the registry."""
    copy: Registry[Metric] = Registry("metric", "none", {m.name: m for m in all_metrics()})  # type: ignore[misc]
    monkeypatch.setattr("analysis.measure.metrics.METRICS", copy)
    analysis.register_metric(toy_gap)
    return toy_gap


@pytest.mark.parametrize("metric", all_metrics(), ids=lambda m: m.name)
def test_a_metric_reads_what_it_declares(metric: Metric, example_sweep: Path) -> None:
    """Alone, on a table of its own columns, it comes out as in the whole table."""
    results = analysis.load(example_sweep, where={"rule": "rmsprop"})
    whole = analysis.accuracy(results).set_index(["run_id", "flow"])[metric.columns]
    rows = 0
    for trace in results.traces(metric.reads):
        for row in score(trace, Scoring(), [metric]):
            expected = whole.loc[(trace.run_id, row["flow"])].to_numpy(dtype=np.float64)
            np.testing.assert_array_equal([float(row[c]) for c in metric.columns], expected)
            rows += 1
    assert rows == 4


def test_every_declaration_is_whole() -> None:
    metrics = all_metrics()
    assert len({m.name for m in metrics}) == len(metrics) == 30
    assert len({m.short for m in metrics}) == len(metrics)
    for m in metrics:
        assert m.meaning.endswith("."), m.name
        assert m.label, m.name
        assert m.reads, m.name
    assert [m.name for m in metrics] == [m.name for m in analysis.METRICS]


def test_a_metric_that_reads_more_than_it_declares_is_told(example_sweep: Path) -> None:
    sly = Metric("sly", "", "sly", "Sly.", function=lambda run: run.flow("test_loss")[0])
    trace = next(analysis.load(example_sweep).traces())
    with pytest.raises(KeyError, match="must declare the columns it reads, got 'test_loss'"):
        list(score(trace, Scoring(), [sly]))


def test_a_metric_of_a_column_that_no_file_has_is_undefined(example_sweep: Path) -> None:
    new = Metric("new", "", "new", "New.", reads=("of_later",),
                 function=lambda run: run.flow("of_later")[0])  # fmt: skip
    trace = next(analysis.load(example_sweep).traces())
    rows = list(score(trace, Scoring(), [new]))
    assert [(row["flow"], np.isnan(row["new"])) for row in rows] == [
        ("central", True),
        ("stable", True),
    ]


def test_a_metric_from_outside_is_everywhere(
    toy: Metric, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_sweep(tmp_path, study_runs(seeds=2, steps=200))
    results = analysis.load(folder)
    frame = analysis.accuracy(results)
    # The optimizer's loss swings by 30% of a half about the flow's.
    finished = frame[(frame["run_status"] == "finished") & (frame["flow"] == "central")]
    assert finished["toy_gap"].tolist() == pytest.approx([0.15] * len(finished))
    assert frame.attrs["units"]["toy_gap"] == "loss"
    summary = analysis.summarize(frame, by="rule", metrics="toy_gap")
    assert summary["mean"].tolist() == pytest.approx([0.15] * 6)
    assert "toy_gap" in set(analysis.summarize(frame)["metric"])
    compared = analysis.compare(frame, "central", "stable", metrics="toy_gap")
    assert (compared["ties"].sum(), compared["wins"].sum()) == (15, 1)  # one stable flow stopped
    assert analysis.plot_accuracy(frame, "toy_gap").get_ylabel() == "largest loss gap (loss)"

    text = accuracy_text(frame, results, bandwidth=20, tolerance=0.05)
    heads = [line for line in text.splitlines() if line.strip().startswith("lr ")]
    assert heads
    assert all(line.endswith(" gap") for line in heads)
    legend = [line for line in text.splitlines() if line.startswith("  toy gap ")]
    assert [line.removeprefix("  toy gap").strip() for line in legend] == [toy.meaning]

    assert main([str(folder), "--format", "parquet"]) == 0
    assert " gap" in capsys.readouterr().out
    page = (folder / "report" / "report.html").read_text()
    assert "<th>toy gap</th>" in page
    assert "<dt>toy gap</dt><dd>Largest |flow&#x27;s loss" in page
    assert page.count('<td class="text">largest loss gap</td>') >= 3  # compared, and its trend
    written = pd.read_parquet(folder / "report" / "tables" / "accuracy.parquet")
    assert "toy_gap" in written


def test_a_metric_of_an_installed_package_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By its entry point, in a registry that has not looked for any yet."""
    (tmp_path / "toy_package.py").write_text(
        "import analysis\n"
        "@analysis.metric(label='steps', reads=('step',))\n"
        "def toy_steps(run):\n"
        "    'Number of steps.'\n"
        "    return float(len(run.step))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    group = "cflows_ray.metrics"
    point = importlib.metadata.EntryPoint("toy_steps", "toy_package:toy_steps", group)
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [point] if group == point.group else []
    )
    monkeypatch.setattr("analysis.measure.metrics.METRICS", Registry("metric", group, {}))
    assert [m.name for m in analysis.METRICS] == ["toy_steps"]
    trace = next(analysis.load(write_sweep(tmp_path, example_runs()[:1])).traces())
    assert [row["toy_steps"] for row in score(trace, Scoring())] == [601.0, 601.0]


def test_mistakes_in_a_declaration(toy: Metric) -> None:
    with pytest.raises(ValueError, match="must have a name that is not taken, got 'horizon'"):
        analysis.register_metric(Metric("horizon", "", "h", "H.", function=lambda _: 0.0))
    with pytest.raises(ValueError, match="metric must be what the decorator"):
        analysis.register_metric(lambda _: 0.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="named by an identifier, got 'a b'"):
        Metric("a b", "", "l", "M.", function=lambda _: 0.0)
    with pytest.raises(ValueError, match=r"shown_in must be of .*, got 'front page'"):
        analysis.metric(name="x", label="x", shown_in=("front page",))(lambda _: 0.0)
    with pytest.raises(ValueError, match="shown_in must be without 'comparison'"):
        Metric("a", "", "l", "M.", False, shown_in=("comparison",), function=lambda _: 0.0)
    with pytest.raises(ValueError, match=r"bounds must be a smaller and a larger.* got \(1, 0\)"):
        analysis.metric(name="x", label="x", bounds=(1, 0))(lambda _: 0.0)
    analysis.register_metric(toy)  # again, as a notebook's cell does


def test_a_ratio_to_another_flow(tmp_path: Path) -> None:
    (run, *_) = example_runs()
    folder = write_sweep(tmp_path, [run])
    to_central = analysis.ratio_to("central")
    trace = next(analysis.load(folder).traces())
    rows = {row["flow"]: row["ratio_to_central"] for row in score(trace, Scoring(), [to_central])}
    assert rows == pytest.approx({"central": 1.0, "stable": 0.25 / 0.02})
