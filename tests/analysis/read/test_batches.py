"""Whole runs in batches: the same rows as one by one, however a part is cut or mixed up."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic import RunTruth, steps_table, write_sweep

import analysis
from analysis.read import BadFileError, Results, load, traces_from_table
from analysis.read.steps import StepReader

RUNS = [RunTruth(run_id=f"r{i}", seed=i, steps=20 + 7 * i) for i in range(6)]


def in_one_part(root: Path, table: pa.Table, rows: int) -> Path:
    """Write the runs in one part, of row groups of so many rows."""
    folder = write_sweep(root, RUNS, parts=1)
    for run in RUNS:
        shutil.rmtree(folder / "steps" / run.run_id)
    pq.write_table(table, folder / "steps" / f"part-{7:016x}.parquet", row_group_size=rows)
    return folder


def whole() -> pa.Table:
    return pa.concat_tables([steps_table(run) for run in RUNS])


def read(results: Results, run_ids: list[str] | None = None) -> tuple[dict[str, Any], list[Any]]:
    """Traces by run, and what was wrong."""
    traces: dict[str, Any] = {}
    problems = []
    wanted = [run.run_id for run in RUNS] if run_ids is None else run_ids
    for found in results.reader.batches(wanted, None):
        if isinstance(found, BadFileError):
            problems.append(found)
        else:
            for trace in traces_from_table(found):
                assert trace.run_id not in traces
                traces[trace.run_id] = trace.processes
    return traces, problems


def assert_right(traces: dict[str, Any]) -> None:
    for run_id, processes in traces.items():
        table = steps_table(next(run for run in RUNS if run.run_id == run_id))
        (expected,) = traces_from_table(table)
        assert processes.keys() == expected.processes.keys()
        for name, columns in processes.items():
            for column, values in columns.items():
                np.testing.assert_array_equal(values, expected.processes[name][column])


@pytest.mark.parametrize("rows", [1, 83, 84, 85, 200, 10_000])
def test_runs_that_row_groups_cut(tmp_path: Path, rows: int, monkeypatch: Any) -> None:
    results = load(in_one_part(tmp_path, whole(), rows))
    monkeypatch.setattr(StepReader, "read_run", lambda *_: pytest.fail("run by run"))
    traces, problems = read(results)
    assert sorted(traces) == [run.run_id for run in RUNS]
    assert not problems
    assert_right(traces)


def test_only_the_runs_asked_for(tmp_path: Path) -> None:
    traces, _ = read(load(in_one_part(tmp_path, whole(), 100)), ["r4", "r1"])
    assert sorted(traces) == ["r1", "r4"]
    assert_right(traces)


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_are_not_together(tmp_path: Path, seed: int) -> None:
    table = whole()
    mixed = table.take(np.random.default_rng(seed).permutation(len(table)))
    traces, problems = read(load(in_one_part(tmp_path, mixed, 150)))
    assert sorted(traces) == [run.run_id for run in RUNS]
    assert not problems
    assert_right(traces)


def test_rows_that_are_there_twice(tmp_path: Path) -> None:
    table = pa.concat_tables(
        [steps_table(RUNS[0]), steps_table(RUNS[1]).slice(0, 5), *map(steps_table, RUNS[1:])]
    )
    traces, (problem,) = read(load(in_one_part(tmp_path, table, 150)))
    assert "holds rows twice" in str(problem)
    assert sorted(traces) == ["r0", "r2", "r3", "r4", "r5"]
    assert_right(traces)


def test_a_part_that_moves_while_it_is_read(tmp_path: Path) -> None:
    folder = in_one_part(tmp_path, whole(), 150)
    results = load(folder)
    batches = results.reader.batches([run.run_id for run in RUNS], None)
    first = next(batches)
    part = folder / "steps" / f"part-{7:016x}.parquet"
    part.rename(part.with_name(f"part-{8:016x}.parquet"))
    found = [trace for table in [first, *batches] for trace in traces_from_table(table)]
    assert sorted(trace.run_id for trace in found) == [run.run_id for run in RUNS]
    assert_right({trace.run_id: trace.processes for trace in found})


def test_conditions_hold_in_batches(tmp_path: Path) -> None:
    folder = in_one_part(tmp_path, whole(), 150)
    where = [("process", "!=", "midpoint"), ("step", "<", 15)]
    traces, _ = read(load(folder, where=where))
    assert sorted(traces) == [run.run_id for run in RUNS]
    for processes in traces.values():
        assert "midpoint" not in processes
        assert processes["discrete"]["step"].max() == 14


def test_scores_of_a_part_are_those_of_files(tmp_path: Path) -> None:
    one = analysis.accuracy(write_sweep(tmp_path / "a", RUNS, name="s"), bandwidth=2)
    other = in_one_part(tmp_path / "b", whole(), 150)
    other.rename(other.with_name("s"))
    frame = analysis.accuracy(other.with_name("s"), bandwidth=2).assign(sweep=one["sweep"])
    assert (
        frame.drop(columns="sweep").to_numpy().astype(str)
        == one.drop(columns="sweep").to_numpy().astype(str)
    ).all()
