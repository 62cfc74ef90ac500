"""What is read, and how much of it is held: filters pushed down, memory bounded."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic import RunTruth, steps_table, write_sweep

import analysis
from analysis import ResultsError, load


def _wipe(file: Path, row_group: int, column: str | None) -> None:
    """Zero the pages of one column (or all) of one row group, so that reading them fails."""
    content = bytearray(file.read_bytes())
    group = pq.ParquetFile(file).metadata.row_group(row_group)
    for i in range(group.num_columns):
        chunk = group.column(i)
        if column in (None, chunk.path_in_schema):
            first = chunk.dictionary_page_offset or chunk.data_page_offset
            content[first : first + chunk.total_compressed_size] = bytes(
                chunk.total_compressed_size
            )
    file.write_bytes(bytes(content))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write one run in one file of two row groups: steps below 50, and the others."""
    run = RunTruth(run_id="aa", steps=100)
    folder = write_sweep(tmp_path, [run], parts=1)
    table = steps_table(run)
    early = int((table["step"].to_numpy() < 50).sum())
    file = folder / "steps" / "aa" / "part-00000000.parquet"
    pq.write_table(table, file, row_group_size=early)
    return folder


def test_columns_that_are_not_asked_for_are_not_read(folder: Path) -> None:
    file = next((folder / "steps" / "aa").iterdir())
    _wipe(file, 0, "test_accuracy")
    steps = load(folder, columns=["train_loss"]).steps
    assert steps["train_loss"].notna().all()
    for where in (None, {"process": "central"}):  # the two ways of reading
        assert len(load(folder, columns=["train_loss"], where=where).steps) > 0
        with pytest.raises(ResultsError, match="is corrupt"):
            _ = load(folder, where=where).steps


def test_row_groups_that_a_filter_excludes_are_not_read(folder: Path) -> None:
    file = next((folder / "steps" / "aa").iterdir())
    _wipe(file, 1, None)
    assert load(folder, where=[("step", "<", 50)]).steps["step"].max() == 49
    with pytest.raises(ResultsError, match="is corrupt"):
        _ = load(folder, where=[("step", "<", 51)]).steps


def test_metrics_read_only_their_columns(folder: Path) -> None:
    file = next((folder / "steps" / "aa").iterdir())
    for group in (0, 1):
        _wipe(file, group, "eig_residual")
    assert len(analysis.accuracy(load(folder))) == 2


def test_only_a_few_runs_are_read_ahead(tmp_path: Path) -> None:
    """What has not been read yet can still vanish: all but the first few runs."""
    runs = [RunTruth(run_id=f"r{i:02d}", seed=i, steps=20) for i in range(12)]
    folder = write_sweep(tmp_path, runs, parts=1)
    traces = load(folder).traces()
    read = [next(traces).run_id]
    for run in runs[6:]:
        shutil.rmtree(folder / "steps" / run.run_id)

    def read_all() -> None:
        for trace in traces:
            read.append(trace.run_id)

    with pytest.raises(ResultsError, match=r"r06: its files have vanished since"):
        read_all()
    assert read == [run.run_id for run in runs[:6]]


def test_memory_does_not_grow_with_the_number_of_runs(tmp_path: Path) -> None:
    peaks = {}
    for n in (4, 24):
        runs = [RunTruth(run_id=f"r{i:02d}", seed=i, steps=2000) for i in range(n)]
        results = load(write_sweep(tmp_path, runs, name=f"s{n}", parts=1))
        analysis.accuracy(results)  # caches and imports, once
        before = pa.total_allocated_bytes()
        tracemalloc.start()
        arrow = 0
        for frame in results.iter_steps():
            arrow = max(arrow, pa.total_allocated_bytes() - before)
            rows = len(frame)
        analysis.study(results)
        peaks[n] = (tracemalloc.get_traced_memory()[1], arrow)
        tracemalloc.stop()
        assert rows == 8002
    # Six times the rows; each run may leave a few hundred numbers of curves and points.
    assert peaks[24][0] < 1.5 * peaks[4][0]
    # Of Arrow's: the run in use, two read ahead and one being read, whichever are there just now.
    assert peaks[24][1] < 4 * steps_table(runs[0]).nbytes
