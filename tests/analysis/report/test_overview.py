"""What a reader of the table is told: why something is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import FlowTruth, RunTruth, write_sweep

import analysis
from analysis.report.overview import overview, warnings_of
from analysis.report.sections.failures import failures
from analysis.report.sections.summary import summary
from analysis.report.terminal import accuracy_text


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (RunTruth(run_id="a", steps=300), None),
        (RunTruth(run_id="a", steps=100), "Runs are shorter than the averaging window of 160"),
        (RunTruth(run_id="a", steps=300, loss=-0.5), "The loss is not positive, so log(loss)"),
    ],
)
def test_why_there_is_no_error_of_the_loss(
    tmp_path: Path, run: RunTruth, words: str | None
) -> None:
    frame = analysis.accuracy(write_sweep(tmp_path, [run]))
    warnings = [line for line in warnings_of(frame, 20.0) if "One seed" not in line]
    assert [line.startswith(words or "") for line in warnings] == [True] * (words is not None)


def test_numbers_of_doubtful_runs_have_a_sign_and_a_legend(tmp_path: Path) -> None:
    doubtful = {"central": FlowTruth(doubts=("stiff",) * 30), "stable": FlowTruth()}
    run = RunTruth(run_id="a", steps=300, flows=doubtful)
    results = analysis.load(write_sweep(tmp_path, [run]))
    found = analysis.study(results)
    text = accuracy_text(found.accuracy, results, bandwidth=20.0, tolerance=0.05)
    (central,) = (line for line in text.splitlines() if " central " in line)
    (stable,) = (line for line in text.splitlines() if " stable " in line)
    assert "2.0!" in central
    assert "!" not in stable
    assert "!: in some run more than 5% of the flow's rows are doubtful" in text
    page = summary(found)
    assert "! 2.0" in page
    assert "!: in some run more than 5%" in page
    trusted = analysis.without_doubtful(found.accuracy)
    assert "!" not in accuracy_text(trusted, results, bandwidth=20.0, tolerance=0.05)


def test_undefined_runs_are_said_and_no_failure_of_a_flow(tmp_path: Path) -> None:
    lost = {"central": FlowTruth(stop=5, ending="diverged"), "stable": FlowTruth()}
    run = RunTruth(run_id="a", steps=300, flows=lost, status="undefined")
    found = analysis.study(write_sweep(tmp_path, [run, RunTruth(run_id="b", seed=1, steps=300)]))
    lines = overview(found.results, found.accuracy)
    assert "(1 finished, 1 undefined)" in lines[0]
    assert lines[1].startswith("  undefined: at the start a derivative of the loss is not finite")
    assert len(lines) == 2
    assert "Flows that stopped" not in failures(found)
    text = accuracy_text(found.accuracy, found.results, bandwidth=20.0, tolerance=0.05)
    assert "1+1x" in text
