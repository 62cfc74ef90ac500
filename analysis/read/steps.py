"""Steps of runs from their files: one run at a time, or the many whole runs of a batch.

A `StepReader` can be sent to another process. While it reads, parts of a run may be merged, and
runs folded into larger files: it then looks for them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from analysis.read.filter import Condition, to_expression
from analysis.read.folded import Parts, find_again, steps_folder
from analysis.read.folders import BadFileError, ResultsError, exists, first_line, is_part

_KEYS = ("run_id", "step", "process")
_TRIES = 4  # at a run whose files are being merged or folded
_THREADS = 8
_BATCH_ROWS = 2**13  # of runs handed out together: enough to share the cost of a call
_BATCH_RUNS = 500  # of one task: as many as a part holds


@dataclass(frozen=True, eq=False)
class StepReader:
    """Reads the table `steps` of runs, filtered.

    Attributes:
        filesystem: where the files are.
        step_files: of each run, in the order of their first steps; kept true while files move.
        schema: of the table, all files united.
        conditions: that rows must meet.
    """

    filesystem: Any
    step_files: dict[str, tuple[str, ...]]
    schema: pa.Schema
    conditions: tuple[Condition, ...]

    def of(self, run_ids: Iterable[str]) -> StepReader:
        """Return a reader of these runs only, small enough to be sent to another process."""
        return replace(self, step_files={r: self.step_files[r] for r in run_ids})

    def tasks(self, run_ids: Iterable[str]) -> list[list[str]]:
        """Split runs that have steps into tasks: those of one part, or some of one sweep.

        Every task can be done alone; together they read every file once.
        """
        together: dict[str, list[str]] = {}
        for run_id in run_ids:
            files = self.step_files.get(run_id)
            if files is not None:
                place = files[0] if is_part(files[0]) else self.home(run_id)
                together.setdefault(place, []).append(run_id)
        return [
            some[i : i + _BATCH_RUNS]
            for some in together.values()
            for i in range(0, len(some), _BATCH_RUNS)
        ]

    def home(self, run_id: str) -> str:
        """Return the folder of the sweep in which a run's steps lie."""
        return steps_folder(self.step_files[run_id]).rpartition("/")[0]

    def file_marks(self, run_ids: Iterable[str]) -> dict[str, str]:
        """Names, sizes and times of the files of each run's steps: other steps have others."""
        of_runs = {run_id: self.step_files[run_id] for run_id in run_ids}
        files = sorted({file for some in of_runs.values() for file in some})
        with ThreadPoolExecutor(_THREADS) as pool:  # an object store answers one by one
            batches = [files[i : i + 100] for i in range(0, len(files), 100)]
            found = list(pool.map(self.filesystem.get_file_info, batches))
        infos = [info for some in found for info in some]
        marks = {
            file: f"{info.base_name}:{info.size}:{info.mtime_ns}"
            for file, info in zip(files, infos, strict=True)
        }
        return {run_id: "|".join(marks[file] for file in some) for run_id, some in of_runs.items()}

    def batches(
        self, run_ids: Sequence[str], columns: tuple[str, ...] | None
    ) -> Iterator[pa.Table | BadFileError]:
        """Read whole runs, several in a table; for a run that cannot be read, what is wrong.

        Holds a few row groups of a part, or so many rows, at a time.
        """
        waiting = dict.fromkeys(run_ids)
        part = next(iter({self.step_files[r] for r in run_ids}), ())
        if len(part) == 1 and is_part(part[0]) and self._are_in(part, run_ids):
            try:
                for table in self._of_part(part[0], waiting, columns):
                    for run_id in pc.unique(table["run_id"]).to_pylist():
                        del waiting[run_id]
                    yield table
            except (pa.ArrowException, OSError, _ScatteredError):
                pass  # the rest is read run by run: that finds what moved and names what is bad
        yield from self._one_by_one(list(waiting), columns)

    def _are_in(self, part: tuple[str, ...], run_ids: Sequence[str]) -> bool:
        return all(self.step_files[r] == part for r in run_ids)

    def _one_by_one(
        self, run_ids: Sequence[str], columns: tuple[str, ...] | None
    ) -> Iterator[pa.Table | BadFileError]:
        tables: list[pa.Table] = []
        for run_id in run_ids:
            try:
                tables.append(self.read_run(run_id, columns))
            except BadFileError as error:
                yield error
            if sum(len(t) for t in tables) >= _BATCH_ROWS:
                yield pa.concat_tables(tables)
                tables = []
        if tables:
            yield pa.concat_tables(tables)

    def _of_part(
        self, part: str, wanted: Iterable[str], columns: tuple[str, ...] | None
    ) -> Iterator[pa.Table]:
        """Read a part row group by row group, and hand on the runs that are whole.

        Raises `_ScatteredError` where the rows of a run are not together, or not told apart.
        """
        schema = projected(self.schema, columns)
        left, done = schema.empty_table(), set[str]()
        for table in self._row_groups(part, pa.array(list(wanted), pa.string()), schema):
            table = pa.concat_tables([left, table]).combine_chunks()
            if not len(table):
                continue
            runs = [run_id for run_id, _ in groupby(table["run_id"].to_pylist())]
            last = len(table) - pc.sum(pc.equal(table["run_id"], runs[-1])).as_py()
            left = table.slice(last)
            if last:
                yield _whole(table.slice(0, last), runs[:-1], done)
        if len(left):
            yield _whole(left, [left["run_id"][0].as_py()], done)

    def _row_groups(self, part: str, among: pa.Array, schema: pa.Schema) -> Iterator[pa.Table]:
        """Read the rows of some runs, row group by row group."""
        if self.conditions:
            fragment = ds.ParquetFileFormat().make_fragment(part, self.filesystem)
            keep = pc.field("run_id").isin(among) & to_expression(self.conditions)
            for group in fragment.split_by_row_group():
                yield group.to_table(
                    schema=self.schema, columns=schema.names, filter=keep, use_threads=False
                ).cast(schema)
            return
        # With nothing else to filter: a seventh of the processor time.
        with self.filesystem.open_input_file(part) as source, pq.ParquetFile(source) as file:
            written = set(file.schema_arrow.names)
            there = [name for name in schema.names if name in written]
            for i in range(file.num_row_groups):
                ids = file.read_row_group(i, columns=["run_id"], use_threads=False)["run_id"]
                mine = pc.is_in(ids, among)
                if pc.any(mine).as_py():
                    table = file.read_row_group(i, columns=there, use_threads=False)
                    yield _conformed(table if pc.all(mine).as_py() else table.filter(mine), schema)

    def read_run(self, run_id: str, columns: tuple[str, ...] | None) -> pa.Table:
        """All rows of one run, filtered; raises `BadFileError` naming the first bad file."""
        for _ in range(_TRIES):
            files = list(self.step_files[run_id])
            try:
                table = self._read_files(run_id, files, columns)
            except (pa.ArrowException, OSError):
                if all(exists(self.filesystem, file) for file in files):
                    self._name_bad_file(run_id, files, columns)
                    raise
                # Since `load` the run's parts have been merged into one, or its steps folded.
                found = find_again(self.filesystem, files, run_id)
                if run_id not in found:
                    break
                self._moved(steps_folder(files), found)
            else:
                _check_rows(table, run_id, _place(files))
                return table
        raise BadFileError(_place(files), "its files have vanished since the folder was opened")

    @cached_property
    def _parts(self) -> Parts:
        return Parts(self.filesystem, self.schema)

    def _moved(self, folder: str, found: dict[str, tuple[str, ...]]) -> None:
        """Note where the steps of runs of one sweep are now: whoever is next need not look."""
        for run_id in found.keys() & self.step_files.keys():
            if steps_folder(self.step_files[run_id]) == folder:
                self.step_files[run_id] = found[run_id]

    def _name_bad_file(
        self, run_id: str, files: list[str], columns: tuple[str, ...] | None
    ) -> None:
        for file in files:
            try:
                self._read_files(run_id, [file], columns)
            except (pa.ArrowException, OSError) as error:
                raise BadFileError(file, f"is corrupt: {first_line(error)}") from error

    def _read_files(
        self, run_id: str, files: list[str], columns: tuple[str, ...] | None
    ) -> pa.Table:
        wanted = projected(self.schema, columns)
        if len(files) == 1 and is_part(files[0]):
            keep = to_expression(self.conditions)
            return self._parts.read_run(files[0], run_id, wanted.names, keep).cast(wanted)
        if not self.conditions and isinstance(self.filesystem, fs.LocalFileSystem):
            # Nothing to filter and no latency to hide: file by file is half the processor time.
            return pa.concat_tables([_read_file(file, wanted) for file in files])
        source = ds.dataset(files, schema=self.schema, format="parquet", filesystem=self.filesystem)
        return source.to_table(columns=wanted.names, filter=to_expression(self.conditions))


class _ScatteredError(Exception):
    """Rows of a run that are not together in a part, or that are there twice."""


def _whole(table: pa.Table, runs: Sequence[str], done: set[str]) -> pa.Table:
    """Pass on a table of whole runs, once they are seen to be whole."""
    if len(set(runs)) < len(runs) or not done.isdisjoint(runs) or _has_twice(table):
        raise _ScatteredError
    done.update(runs)
    return table


def _place(files: list[str]) -> str:
    """Return what an error calls a run's files: their folder, or the part with its rows."""
    return files[0] if is_part(files[0]) else files[0].rsplit("/", 1)[0]


def check_columns(columns: Iterable[str], schema: pa.Schema) -> tuple[str, ...]:
    """Return names of columns of `steps`. Raises `ResultsError` for one that no file has.

    >>> check_columns("step", pa.schema({"step": pa.int64()}))
    ('step',)
    """
    names = [columns] if isinstance(columns, str) else list(columns)
    for name in names:
        if name not in schema.names:
            raise ResultsError(f"columns: no column '{name}' in steps; there are {schema.names}")
    return tuple(names)


def projected(schema: pa.Schema, columns: tuple[str, ...] | None) -> pa.Schema:
    """Keep these columns of a schema of `steps`, and the keys; all for None."""
    if columns is None:
        return schema
    return pa.schema([f for f in schema if f.name in (*_KEYS, *columns)], metadata=schema.metadata)


def _read_file(file: str, wanted: pa.Schema) -> pa.Table:
    with pq.ParquetFile(file) as source:
        written = set(source.schema_arrow.names)
        there = [name for name in wanted.names if name in written]
        return _conformed(source.read(columns=there, use_threads=False), wanted)


def _conformed(table: pa.Table, wanted: pa.Schema) -> pa.Table:
    """Give a file's columns the order and types of all files; null where another file has one."""
    there = [name for name in wanted.names if name in table.schema.names]
    table = table.select(there)
    for place, lacking in enumerate(wanted):
        if lacking.name not in there:
            table = table.add_column(place, lacking, pa.nulls(len(table), lacking.type))
    return table if table.schema.equals(wanted) else table.cast(wanted)


def _check_rows(table: pa.Table, run_id: str, folder: str) -> None:
    """Refuse rows of another run and rows that are there twice."""
    others = pc.unique(table["run_id"]).to_pylist()
    if others not in ([], [run_id]):
        other = next(o for o in others if o != run_id)
        raise BadFileError(folder, f"holds rows of another run, {other!r}")
    if _has_twice(table):
        raise BadFileError(folder, "holds rows twice (same step and process)")


def _has_twice(table: pa.Table) -> bool:
    """Whether a run has two rows of the same step and process."""
    codes = [
        pc.dictionary_encode(table[name].combine_chunks()).indices.to_numpy().astype(np.int64)
        for name in ("run_id", "process")
    ]
    step = table["step"].to_numpy()
    order = np.lexsort((step, *codes))
    keys = np.stack([step, *codes])[:, order]
    return bool((keys[:, 1:] == keys[:, :-1]).all(axis=0).any())
