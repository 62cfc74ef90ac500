"""What `load` returns: the table `runs`, and `steps` run by run.

The `runs` table is read at once (one row per run). The `steps` table can be larger than memory: it
is read whole only when `Results.steps` is asked for; everything else in this package streams it run
by run through `Results.traces` or `Results.iter_steps`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from analysis.read.declared import processes_of, references
from analysis.read.filter import Condition, rules_out, to_expression
from analysis.read.folded import Parts, find_again, steps_folder
from analysis.read.folders import BadFileError, ResultsError, exists, first_line, is_part
from analysis.read.frames import to_frame
from analysis.read.trace import Trace, trace_from_table

_KEYS = ("run_id", "step", "process")
_TRIES = 4  # at a run whose files are being merged or folded
_LOOKAHEAD = 2  # runs read ahead of the one being worked on: bounds memory


@dataclass(frozen=True, eq=False)
class Results:
    """A results folder, opened: the table `runs`, and `steps` on demand.

    Attributes:
        location: the path or URI that was opened.
        runs: one row per run, schema `runs` and whatever further columns the files have. A run
            without a row on storage has status `running`.

    Made by `load`; see there for an example.
    """

    location: str
    runs: pd.DataFrame
    _filesystem: Any = field(repr=False)
    _step_files: dict[str, tuple[str, ...]] = field(repr=False)
    _schema: pa.Schema = field(repr=False)  # of the table `steps`, all files united
    _conditions: tuple[Condition, ...] = field(repr=False)
    _columns: tuple[str, ...] | None = field(repr=False)
    _skip: bool = field(repr=False)
    _problems: dict[str, str] = field(repr=False)

    @cached_property
    def steps(self) -> pd.DataFrame:
        """The whole table `steps` in memory; use `iter_steps` where it does not fit."""
        tables = [table for _, table in self._tables(self._columns)]
        schema = projected(self._schema, self._columns)
        whole = pa.concat_tables(tables) if tables else schema.empty_table()
        return self._frame(whole)

    @property
    def step_columns(self) -> list[str]:
        """Names of the columns that the table `steps` has in any of the files."""
        return list(self._schema.names)

    @property
    def problems(self) -> pd.DataFrame:
        """Files that were left out and why: columns `file`, `problem`."""
        return pd.DataFrame(
            {"file": list(self._problems), "problem": list(self._problems.values())}, dtype="str"
        )

    def leaves_out(self, process: str) -> bool:
        """Whether the `where` given to `load` keeps all rows of a process from being read."""
        return rules_out(self._conditions, "process", process)

    def iter_steps(self, columns: Iterable[str] | None = None) -> Iterator[pd.DataFrame]:
        """Frames of the table `steps`, one per run, without ever holding them all.

        `columns` overrides the projection given to `load`; `run_id`, `step` and `process` are
        always there.
        """
        wanted = self._columns if columns is None else check_columns(columns, self._schema)
        for _, table in self._tables(wanted):
            yield self._frame(table)

    def traces(self, columns: Iterable[str] | None = None) -> Iterator[Trace]:
        """Iterate over runs as NumPy arrays per process, one `Trace` each; the fast way."""
        wanted = None if columns is None else check_columns([*columns, "status"], self._schema)
        measured_against = references(processes_of(self.runs))
        for run_id, table in self._tables(wanted):
            yield trace_from_table(run_id, table, measured_against)

    def run_steps(self, run_id: str) -> pd.DataFrame:
        """Read the rows of `steps` of one run. Raises `KeyError` if it has none."""
        if run_id not in self._step_files:
            raise KeyError(f"no steps of run {run_id!r} in {self.location}")
        return self._frame(self._read_run(run_id, None))

    def _frame(self, table: pa.Table) -> pd.DataFrame:
        frame = to_frame(table, "steps")
        frame.attrs["processes"] = processes_of(self.runs)
        return frame

    def _tables(self, columns: tuple[str, ...] | None) -> Iterator[tuple[str, pa.Table]]:
        """Arrow tables run by run, read a bounded number of runs ahead in one thread."""
        run_ids = [str(r) for r in self.runs["run_id"] if str(r) in self._step_files]
        with ThreadPoolExecutor(1) as pool:
            queue: list[tuple[str, Future[pa.Table]]] = []
            for run_id in [*run_ids, *[None] * _LOOKAHEAD]:
                if run_id is not None:
                    queue.append((run_id, pool.submit(self._read_run, run_id, columns)))
                if queue and (run_id is None or len(queue) > _LOOKAHEAD):
                    ready, future = queue.pop(0)
                    try:
                        table = future.result()
                    except BadFileError as error:
                        if not self._skip:
                            raise
                        self._problems[error.file] = error.problem
                        continue
                    yield ready, table

    def _read_run(self, run_id: str, columns: tuple[str, ...] | None) -> pa.Table:
        """All rows of one run, filtered; raises `BadFileError` naming the first bad file."""
        for _ in range(_TRIES):
            files = list(self._step_files[run_id])
            try:
                table = self._read_files(run_id, files, columns)
            except (pa.ArrowException, OSError):
                if all(exists(self._filesystem, file) for file in files):
                    self._name_bad_file(run_id, files, columns)
                    raise
                # Since `load` the run's parts have been merged into one, or its steps folded.
                found = find_again(self._filesystem, files, run_id)
                if run_id not in found:
                    break
                self._moved(steps_folder(files), found)
            else:
                _check_rows(table, run_id, _place(files))
                return table
        raise BadFileError(_place(files), "its files have vanished since the folder was opened")

    @cached_property
    def _parts(self) -> Parts:
        return Parts(self._filesystem, self._schema)

    def _moved(self, folder: str, found: dict[str, tuple[str, ...]]) -> None:
        """Note where the steps of runs of one sweep are now: whoever is next need not look."""
        for run_id in found.keys() & self._step_files.keys():
            if steps_folder(self._step_files[run_id]) == folder:
                self._step_files[run_id] = found[run_id]

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
        wanted = projected(self._schema, columns)
        if len(files) == 1 and is_part(files[0]):
            keep = to_expression(self._conditions)
            return self._parts.read_run(files[0], run_id, wanted.names, keep).cast(wanted)
        if not self._conditions and isinstance(self._filesystem, fs.LocalFileSystem):
            # Nothing to filter and no latency to hide: file by file is half the processor time.
            return pa.concat_tables([_read_file(file, wanted) for file in files])
        source = ds.dataset(
            files, schema=self._schema, format="parquet", filesystem=self._filesystem
        )
        return source.to_table(columns=wanted.names, filter=to_expression(self._conditions))


def _place(files: list[str]) -> str:
    """Return what an error calls a run's files: their folder, or the part with its rows."""
    return files[0] if is_part(files[0]) else files[0].rsplit("/", 1)[0]


def check_columns(columns: Iterable[str], schema: pa.Schema) -> tuple[str, ...]:
    """Return names of columns of `steps`. Raises `ResultsError` for one that no file has."""
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
        table = source.read(columns=there, use_threads=False).select(there)
    for place, lacking in enumerate(wanted):
        if lacking.name not in there:  # another file of the folder has it
            table = table.add_column(place, lacking, pa.nulls(len(table), lacking.type))
    return table if table.schema.equals(wanted) else table.cast(wanted)


def _check_rows(table: pa.Table, run_id: str, folder: str) -> None:
    """Refuse rows of another run and rows that are there twice."""
    others = pc.unique(table["run_id"]).to_pylist()
    if others not in ([], [run_id]):
        other = next(o for o in others if o != run_id)
        raise BadFileError(folder, f"holds rows of another run, {other!r}")
    keys = pa.table({"step": table["step"], "process": table["process"]})
    if keys.group_by(["step", "process"]).aggregate([]).num_rows < keys.num_rows:
        raise BadFileError(folder, "holds rows twice (same step and process)")
