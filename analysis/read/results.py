"""What `load` returns: the table `runs`, and `steps` run by run.

The `runs` table is read at once (one row per run). The `steps` table can be larger than memory: it
is read whole only when `Results.steps` is asked for; everything else in this package streams it,
run by run or in batches of runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd
import pyarrow as pa

from analysis.read.declared import processes_of, references
from analysis.read.filter import rules_out
from analysis.read.folders import BadFileError
from analysis.read.frames import to_frame
from analysis.read.steps import StepReader, check_columns, projected
from analysis.read.trace import Trace, trace_from_table

_LOOKAHEAD = 2  # runs read ahead of the one being worked on: bounds memory


@dataclass(frozen=True, eq=False)
class Results:
    """A results folder, opened: the table `runs`, and `steps` on demand.

    Attributes:
        location: the path or URI that was opened.
        runs: one row per run, schema `runs` and whatever further columns the files have. A run
            without a row on storage has status `running`.
        reader: of the table `steps`.

    Made by `load`; see there for an example.
    """

    location: str
    runs: pd.DataFrame
    reader: StepReader = field(repr=False)
    _columns: tuple[str, ...] | None = field(repr=False)
    _skip: bool = field(repr=False)
    _problems: dict[str, str] = field(repr=False)

    @cached_property
    def steps(self) -> pd.DataFrame:
        """The whole table `steps` in memory; use `iter_steps` where it does not fit."""
        tables = [table for _, table in self._tables(self._columns)]
        schema = projected(self.reader.schema, self._columns)
        whole = pa.concat_tables(tables) if tables else schema.empty_table()
        return self._frame(whole)

    @property
    def step_columns(self) -> list[str]:
        """Names of the columns that the table `steps` has in any of the files."""
        return list(self.reader.schema.names)

    @property
    def problems(self) -> pd.DataFrame:
        """Files that were left out and why: columns `file`, `problem`."""
        return pd.DataFrame(
            {"file": list(self._problems), "problem": list(self._problems.values())}, dtype="str"
        )

    def set_aside(self, error: BadFileError) -> None:
        """List a bad file that was met while steps were read, or raise, as `load` was told."""
        if not self._skip:
            raise error
        self._problems[error.file] = error.problem

    def leaves_out(self, process: str) -> bool:
        """Whether the `where` given to `load` keeps all rows of a process from being read."""
        return rules_out(self.reader.conditions, "process", process)

    def iter_steps(self, columns: Iterable[str] | None = None) -> Iterator[pd.DataFrame]:
        """Frames of the table `steps`, one per run, without ever holding them all.

        `columns` overrides the projection given to `load`; `run_id`, `step` and `process` are
        always there.
        """
        wanted = self._columns if columns is None else check_columns(columns, self.reader.schema)
        for _, table in self._tables(wanted):
            yield self._frame(table)

    def traces(self, columns: Iterable[str] | None = None) -> Iterator[Trace]:
        """Iterate over runs as NumPy arrays per process, one `Trace` each; the fast way."""
        wanted = (
            None if columns is None else check_columns([*columns, "status"], self.reader.schema)
        )
        measured_against = references(processes_of(self.runs))
        for run_id, table in self._tables(wanted):
            yield trace_from_table(run_id, table, measured_against)

    def run_steps(self, run_id: str) -> pd.DataFrame:
        """Read the rows of `steps` of one run. Raises `KeyError` if it has none."""
        if run_id not in self.reader.step_files:
            raise KeyError(f"no steps of run {run_id!r} in {self.location}")
        return self._frame(self.reader.read_run(run_id, None))

    def _frame(self, table: pa.Table) -> pd.DataFrame:
        frame = to_frame(table, "steps")
        frame.attrs["processes"] = processes_of(self.runs)
        return frame

    def _tables(self, columns: tuple[str, ...] | None) -> Iterator[tuple[str, pa.Table]]:
        """Arrow tables run by run, read a bounded number of runs ahead in one thread."""
        run_ids = [str(r) for r in self.runs["run_id"] if str(r) in self.reader.step_files]
        with ThreadPoolExecutor(1) as pool:
            queue: list[tuple[str, Future[pa.Table]]] = []
            for run_id in [*run_ids, *[None] * _LOOKAHEAD]:
                if run_id is not None:
                    queue.append((run_id, pool.submit(self.reader.read_run, run_id, columns)))
                if queue and (run_id is None or len(queue) > _LOOKAHEAD):
                    ready, future = queue.pop(0)
                    try:
                        table = future.result()
                    except BadFileError as error:
                        self.set_aside(error)
                        continue
                    yield ready, table
