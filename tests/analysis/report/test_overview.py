"""What a reader of the table is told: why something is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import RunTruth, write_sweep

import analysis
from analysis.report.overview import warnings_of


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
