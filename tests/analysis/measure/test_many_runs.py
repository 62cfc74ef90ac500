"""Runs are scored once, in one process or several, and their scores kept beside the results."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from synthetic import RunTruth, example_runs, steps_table, write_sweep

import analysis
from analysis.measure import many_runs, one_pass, score_cache
from analysis.measure.metrics import METRICS
from analysis.read import StepReader
from cflows_ray.store import Storage, fold

FRAMES = ("accuracy", "sensitivity", "points", "curves")


def assert_same(found: analysis.Study, expected: analysis.Study) -> None:
    """Every number is the same, bit for bit."""
    for name in FRAMES:
        pd.testing.assert_frame_equal(
            getattr(found, name), getattr(expected, name), check_exact=name != "sensitivity"
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a sweep that tests may change."""
    return write_sweep(tmp_path, example_runs(), name="s")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the runs whose steps are read."""
    found: list[str] = []
    original = StepReader.batches

    def counted(self: Any, run_ids: Any, columns: Any) -> Iterator[Any]:
        found.extend(run_ids)
        return original(self, run_ids, columns)

    monkeypatch.setattr(StepReader, "batches", counted)
    return found


def in_tasks_of(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a task have at most so many runs."""
    original = StepReader.tasks

    def small(self: StepReader, run_ids: Any) -> list[list[str]]:
        tasks = original(self, run_ids)
        return [task[i : i + most] for task in tasks for i in range(0, len(task), most)]

    monkeypatch.setattr(StepReader, "tasks", small)


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "analysis").glob("*"))


def cached(folder: Path, **options: Any) -> analysis.Study:
    return analysis.study(analysis.load(folder, on_bad_file="skip"), cache=True, **options)


@pytest.mark.slow  # each of them imports all
def test_several_processes_find_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = analysis.study(folder)
    monkeypatch.setattr(many_runs, "_WORTH_A_PROCESS", 1)
    in_tasks_of(2, monkeypatch)
    here: list[Any] = []
    monkeypatch.setattr(many_runs, "_carry_out", lambda *a: here.append(a))
    assert_same(analysis.study(folder, workers=2), expected)
    assert not here  # all of it was done elsewhere


def test_a_metric_that_cannot_be_sent_is_computed_here(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @analysis.metric(label="gap", reads=("train_loss",))
    def unsent(run: analysis.SideBySide) -> float:
        """Of this function only."""
        return float(np.nanmax(run.flow("train_loss")))

    monkeypatch.setattr(many_runs, "_WORTH_A_PROCESS", 1)
    in_tasks_of(2, monkeypatch)
    analysis.register_metric(unsent)
    try:
        assert analysis.study(folder, workers=2).accuracy["unsent"].notna().all()
    finally:
        METRICS.remove("unsent")


def test_a_second_study_reads_nothing(folder: Path, reads: list[str]) -> None:
    first = cached(folder)
    assert sorted(reads) == sorted(r.run_id for r in example_runs())
    reads.clear()
    second = cached(folder)
    assert reads == []
    assert_same(second, first)
    assert_same(second, analysis.study(folder))


def test_only_new_runs_are_read(folder: Path, tmp_path: Path, reads: list[str]) -> None:
    cached(folder)
    reads.clear()
    new = RunTruth(run_id="new", lr=0.5, seed=9)
    other = write_sweep(tmp_path / "other", [new], name="s")
    for table in ("runs", "steps"):
        shutil.copytree(other / table, folder / table, dirs_exist_ok=True)
    found = cached(folder)
    assert reads == ["new"]
    assert_same(found, analysis.study(folder))


def test_an_interrupted_study_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    in_tasks_of(2, monkeypatch)
    original, calls = many_runs._carry_out, []

    def interrupted(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(many_runs, "_carry_out", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached(folder)
    assert len(reads) == 2
    monkeypatch.setattr(many_runs, "_carry_out", original)
    found = cached(folder)
    assert sorted(reads) == sorted(r.run_id for r in example_runs())  # each of them once
    assert_same(found, analysis.study(folder))


def test_beside_the_metrics_a_sample_of_many_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    whole = analysis.study(folder)
    monkeypatch.setattr(one_pass, "SAMPLED_RUNS", 3)
    found = cached(folder)
    pd.testing.assert_frame_equal(found.accuracy, whole.accuracy)
    some = set(found.curves["run_id"])
    assert len(some) == 3
    assert set(found.points["run_id"]) <= some
    few = analysis.load(folder, where={"run_id": sorted(some)})
    pd.testing.assert_frame_equal(found.sensitivity, analysis.study(few).sensitivity)
    # More runs: who leaves the sample makes room for new ones, and nothing is read twice.
    reads.clear()
    new = [RunTruth(run_id=f"new{i}", lr=0.5, seed=i) for i in range(6)]
    other = write_sweep(tmp_path / "other", new, name="s")
    for table in ("runs", "steps"):
        shutil.copytree(other / table, folder / table, dirs_exist_ok=True)
    found = cached(folder)
    assert sorted(reads) == [run.run_id for run in new]
    assert len(set(found.curves["run_id"])) == 3
    assert set(found.curves["run_id"]) != some
    # Of some of the runs, others are the sample: they are read again, for what was left out.
    reads.clear()
    left = sorted({run.run_id for run in example_runs()} - some - set(found.curves["run_id"]))
    again = analysis.study(analysis.load(folder, where={"run_id": left}), cache=True)
    assert sorted(reads) == left
    assert set(again.curves["run_id"]) == set(left)


def test_folding_keeps_the_scores(folder: Path, reads: list[str]) -> None:
    first = cached(folder)
    reads.clear()
    fold(Storage(str(folder)), at_end=True)
    assert_same(cached(folder), first)
    fold(Storage(str(folder)), at_end=True)


@pytest.mark.parametrize("change", ["steps", "row"])
def test_a_run_that_changed_is_read_again(folder: Path, reads: list[str], change: str) -> None:
    cached(folder)
    reads.clear()
    run = example_runs()[0]
    if change == "steps":
        place = folder / "steps" / run.run_id
        for file in place.iterdir():
            file.unlink()
        pq.write_table(steps_table(run).slice(0, 800), place / "part-00000000.parquet")
    else:
        file = folder / "runs" / f"{run.run_id}.parquet"
        table = pq.read_table(file)
        i = table.schema.get_field_index("wall_s")
        pq.write_table(table.set_column(i, table.schema.field(i), [[123.0]]), file)
    found = cached(folder)
    assert reads == [run.run_id]
    assert_same(found, analysis.study(folder))


def test_other_settings_and_metrics_are_other_scores(folder: Path, reads: list[str]) -> None:
    cached(folder)
    for options in ({"bandwidth": 10.0}, {"tolerance": 0.1}):
        reads.clear()
        cached(folder, **options)
        assert len(reads) == len(example_runs()), options

    def scored_by(factor: float) -> analysis.Study:
        @analysis.metric(label="gap", reads=("train_loss",))
        def plugged(run: analysis.SideBySide) -> float:
            """Depend on a number from around it."""
            return factor * float(np.nanmax(run.flow("train_loss")))

        analysis.register_metric(plugged)
        reads.clear()
        return cached(folder)

    try:
        one = scored_by(1.0).accuracy["plugged"]
        assert len(reads) == len(example_runs())
        scored_by(1.0)
        assert reads == []
        two = scored_by(2.0).accuracy["plugged"]
        assert len(reads) == len(example_runs())
        assert two.to_numpy() == pytest.approx(2 * one.to_numpy())
    finally:
        METRICS.remove("plugged")
    assert len({file.name.split("-")[1] for file in kept(folder)}) == 3  # older ones are dropped


def test_damaged_scores_are_computed_again(folder: Path, reads: list[str]) -> None:
    expected = cached(folder)
    for damage in (b"", b"PAR1 and no more", None):
        (file,) = kept(folder)
        content = bytearray(file.read_bytes())
        chunk = pq.read_metadata(file).row_group(0).column(5)
        first = chunk.dictionary_page_offset or chunk.data_page_offset
        content[first + chunk.total_compressed_size - 1] ^= 1  # in its last page
        file.write_bytes(content if damage is None else damage)
        reads.clear()
        assert_same(cached(folder), expected)
        assert len(reads) == len(example_runs())


def test_a_folder_that_is_only_read(folder: Path) -> None:
    (folder / "analysis").write_text("no folder can be made of this name")
    assert_same(cached(folder), analysis.study(folder))


def test_small_files_are_put_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    in_tasks_of(1, monkeypatch)
    monkeypatch.setattr(score_cache, "_MANY", 4)
    expected = cached(folder)
    assert len(kept(folder)) == 1
    reads.clear()
    assert_same(cached(folder), expected)
    assert reads == []
