"""Opening a results folder: `load` and the `Results` that it returns.

The `runs` table is read at once (one row per run). The `steps` table can be larger than memory: it
is read whole only when `Results.steps` is asked for; everything else in this package streams it run
by run through `Results.traces` or `Results.iter_steps`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

from analysis.duplicates import choose_sweeps, readable_steps
from analysis.frames import to_frame
from analysis.storage import (
    ResultsError,
    SweepFolder,
    check_files,
    exists,
    find_sweeps,
    first_line,
    list_parquet,
    open_location,
    read_sweep_json,
)
from analysis.trace import Trace, trace_from_table
from analysis.where import Condition, no_match, parse_where, rules_out, to_expression
from cflows_ray.schema import absent_values, arrow_schema, column_names

Where = Mapping[str, Any] | Sequence[tuple[str, str, Any]]

_KEYS = ("run_id", "step", "process")
_LOOKAHEAD = 2  # runs read ahead of the one being worked on: bounds memory


@dataclass(frozen=True, eq=False)
class Results:
    """A results folder, opened: the table `runs`, and `steps` on demand.

    Attributes:
        location: the path or URI that was opened.
        runs: one row per run, schema `runs`. A run without a row on storage has status `running`.
        sweeps: contents of each sweep's `sweep.json`, by the name of its folder.

    Made by `load`; see there for an example.
    """

    location: str
    runs: pd.DataFrame
    sweeps: dict[str, dict[str, Any]]
    _filesystem: Any = field(repr=False)
    _step_files: dict[str, tuple[str, ...]] = field(repr=False)
    _conditions: tuple[Condition, ...] = field(repr=False)
    _columns: tuple[str, ...] | None = field(repr=False)
    _skip: bool = field(repr=False)
    _problems: dict[str, str] = field(repr=False)

    @cached_property
    def steps(self) -> pd.DataFrame:
        """The whole table `steps` in memory; use `iter_steps` where it does not fit."""
        tables = [table for _, table in self._tables(self._columns)]
        schema = _projected(self._columns)
        whole = pa.concat_tables(tables) if tables else schema.empty_table()
        return to_frame(whole, "steps")

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
        wanted = self._columns if columns is None else _check_columns(columns)
        for _, table in self._tables(wanted):
            yield to_frame(table, "steps")

    def traces(self, columns: Iterable[str] | None = None) -> Iterator[Trace]:
        """Iterate over runs as NumPy arrays per process, one `Trace` each; the fast way."""
        wanted = None if columns is None else _check_columns([*columns, "status"])
        for run_id, table in self._tables(wanted):
            yield trace_from_table(run_id, table)

    def trace(self, run_id: str) -> Trace:
        """Read the trace of one run. Raises `KeyError` if it has no steps."""
        if run_id not in self._step_files:
            raise KeyError(f"no steps of run {run_id!r} in {self.location}")
        return trace_from_table(run_id, self._read_run(run_id, None))

    def run_steps(self, run_id: str) -> pd.DataFrame:
        """Read the rows of `steps` of one run. Raises `KeyError` if it has none."""
        if run_id not in self._step_files:
            raise KeyError(f"no steps of run {run_id!r} in {self.location}")
        return to_frame(self._read_run(run_id, None), "steps")

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
                    except ResultsError as error:
                        if not self._skip:
                            raise
                        file, _, problem = str(error).partition(": ")
                        self._problems[file] = problem
                        continue
                    yield ready, table

    def _read_run(self, run_id: str, columns: tuple[str, ...] | None) -> pa.Table:
        """All parts of one run, filtered; raises `ResultsError` naming the first bad part."""
        files = list(self._step_files[run_id])
        if not all(exists(self._filesystem, file) for file in files):
            # The run went on since `load`: its parts have been merged into one.
            folder = files[0].rsplit("/", 1)[0]
            files = list_parquet(self._filesystem, folder, recursive=False)
        try:
            table = self._read_files(files, columns)
        except (pa.ArrowException, OSError):
            for file in files:
                try:
                    self._read_files([file], columns)
                except (pa.ArrowException, OSError) as error:
                    raise ResultsError(f"{file}: is corrupt: {first_line(error)}") from error
            raise
        _check_rows(table, run_id, self._step_files[run_id][0].rsplit("/", 1)[0])
        return table

    def _read_files(self, files: list[str], columns: tuple[str, ...] | None) -> pa.Table:
        wanted = _projected(columns)
        if not self._conditions and isinstance(self._filesystem, fs.LocalFileSystem):
            # Nothing to filter and no latency to hide: file by file is half the processor time.
            return pa.concat_tables([_read_file(file, wanted) for file in files])
        source = ds.dataset(
            files, schema=arrow_schema("steps"), format="parquet", filesystem=self._filesystem
        )
        return source.to_table(columns=wanted.names, filter=to_expression(self._conditions))


Source = Results | str | os.PathLike[str]  # what functions that read results take


def load(
    path_or_uri: str | os.PathLike[str],
    *,
    sweep: str | Sequence[str] | None = None,
    where: Where | None = None,
    columns: Iterable[str] | None = None,
    on_bad_file: str = "raise",
) -> Results:
    """Open a results folder: one sweep's, or a folder of sweeps.

    Args:
        path_or_uri: local folder or any URI of `pyarrow.fs` (`s3://bucket/results/x`, `gs://...`).
        sweep: of a folder of sweeps, only this one, or these.
        where: row filter, pushed down to Parquet: `{"rule": "rmsprop", "lr": [0.1, 0.2]}` (equal
            to, or one of) or `[("lr", ">", 0.01), ("process", "!=", "midpoint")]`. Columns of both
            tables may be named; `run_id` and `status` mean those of `runs`.
        columns: of `Results.steps` (all by default); `run_id`, `step` and `process` always come
            along. Metrics read what they need whatever is given here.
        on_bad_file: "raise" a `ResultsError` at the first unreadable or foreign file, or "skip"
            such files and list them in `Results.problems`.

    A run that several sweeps of the folder hold is taken, row and steps, from one of them: where it
    ended, else where it has come furthest. Runs that have not ended have status `running`; a
    `where` on the configuration, not known yet, leaves them out.

    Raises `FileNotFoundError` for a missing folder, `ResultsError` for a folder without a sweep, an
    empty sweep, a bad file, a column that does not exist, or a filter of the wrong type or that no
    run that has ended meets.

    >>> results = load(example_sweep)
    >>> results.runs[["rule", "lr", "seed", "status"]].head(2)
                   rule    lr  seed    status
    0  gradient_descent  0.01     0  finished
    1  gradient_descent  0.01     1  finished
    >>> rms = load(example_sweep, where={"rule": "rmsprop", "process": "central"},
    ...            columns=["train_loss"])
    >>> list(rms.steps.columns)
    ['run_id', 'step', 'process', 'train_loss']
    """
    if on_bad_file not in ("raise", "skip"):
        raise ValueError(f"on_bad_file must be 'raise' or 'skip', got {on_bad_file!r}")
    run_conditions, step_conditions = parse_where(where)
    wanted = None if columns is None else _check_columns(columns)
    filesystem, path = open_location(path_or_uri)
    found = _named_sweeps(_listed(filesystem, path), sweep)
    problems = _check_sweeps(found, skip=on_bad_file == "skip")
    runs, steps = _runs_and_steps(found, run_conditions, problems)
    return Results(
        location=os.fspath(path_or_uri),
        runs=_sorted_runs(to_frame(runs, "runs")),
        sweeps={s.name: read_sweep_json(s) for s in found},
        _filesystem=filesystem,
        _step_files=steps,
        _conditions=step_conditions,
        _columns=wanted,
        _skip=on_bad_file == "skip",
        _problems=problems,
    )


def opened(results: Source) -> Results:
    """Take what `load` returned, or load a path or URI. Raises `ResultsError` for anything else."""
    if isinstance(results, Results):
        return results
    if isinstance(results, (str, os.PathLike)):
        return load(results)
    raise ResultsError(
        f"results must be what analysis.load returns, or a path, got {type(results).__name__}"
    )


def _runs_and_steps(
    found: Sequence[SweepFolder], conditions: Sequence[Condition], problems: Mapping[str, str]
) -> tuple[pa.Table, dict[str, tuple[str, ...]]]:
    """Rows of `runs` that meet the conditions, and the files of each run's steps."""
    # A run in several sweeps belongs to one; which one, a condition on the sweep may decide.
    of_sweeps = [c for c in conditions if c.column == "sweep"]
    of_runs = [c for c in conditions if c.column != "sweep"]
    read = [_read_runs(one, problems) for one in found]
    rows = [_filtered(table, of_sweeps) for table in read]
    chosen = choose_sweeps(found, [_statuses(table) for table in rows], problems)
    steps = _chosen_steps(found, chosen, problems)
    kept = _chosen_rows(rows, chosen)
    runs = _filtered(kept, of_runs)
    everything = kept if kept.num_rows else pa.concat_tables(read)
    if conditions and everything.num_rows and not runs.num_rows:
        raise ResultsError(no_match(everything, conditions))
    return runs if conditions else _add_running(runs, found, chosen, steps), steps


def _check_columns(columns: Iterable[str]) -> tuple[str, ...]:
    names = [columns] if isinstance(columns, str) else list(columns)
    known = column_names("steps")
    for name in names:
        if name not in known:
            raise ResultsError(f"columns: no column '{name}' in steps; there are {known}")
    return tuple(names)


def _projected(columns: tuple[str, ...] | None) -> pa.Schema:
    schema = arrow_schema("steps")
    if columns is None:
        return schema
    return pa.schema([f for f in schema if f.name in (*_KEYS, *columns)], metadata=schema.metadata)


def _read_file(file: str, wanted: pa.Schema) -> pa.Table:
    with pq.ParquetFile(file) as source:
        table = source.read(columns=wanted.names, use_threads=False).select(wanted.names)
    return table if table.schema.equals(wanted) else table.cast(wanted)


def _check_sweeps(found: list[SweepFolder], *, skip: bool) -> dict[str, str]:
    problems: dict[str, str] = {}
    for sweep in found:
        problems |= check_files(sweep.filesystem, sweep.run_files, "runs")
        parts = [file for files in sweep.step_files.values() for file in files]
        problems |= check_files(sweep.filesystem, parts, "steps")
    total = sum(len(s.run_files) + sum(map(len, s.step_files.values())) for s in found)
    if problems and (not skip or len(problems) == total):
        file, problem = next(iter(problems.items()))
        more = f" (and {len(problems) - 1} more bad files)" if len(problems) > 1 else ""
        raise ResultsError(f"{file}: {problem}{more}")
    return problems


def _read_runs(sweep: SweepFolder, problems: Mapping[str, str]) -> pa.Table:
    """Rows of all good `runs` files of a sweep."""
    schema = arrow_schema("runs")
    files = [f for f in sweep.run_files if f not in problems]
    if not files:
        return schema.empty_table()
    source = ds.dataset(files, schema=schema, format="parquet", filesystem=sweep.filesystem)
    try:
        return _with_absent(source.to_table())
    except (pa.ArrowException, OSError) as error:
        raise ResultsError(f"{sweep.path}/runs: corrupt file: {first_line(error)}") from error


def _filtered(table: pa.Table, conditions: Iterable[Condition]) -> pa.Table:
    keep = to_expression(conditions)
    return table if keep is None else table.filter(keep)


def _statuses(runs: pa.Table) -> dict[str, str]:
    return dict(zip(runs["run_id"].to_pylist(), runs["status"].to_pylist(), strict=True))


def _chosen_rows(rows: Sequence[pa.Table], chosen: Mapping[str, int]) -> pa.Table:
    """One row per run, from the sweep that it is taken from."""
    kept = []
    for place, table in enumerate(rows):
        first = pd.Series(table["run_id"].to_pylist(), dtype="str").drop_duplicates()
        mine = [i for i, run_id in first.items() if chosen[run_id] == place]
        kept.append(table.take(pa.array(mine, pa.int64())))
    return pa.concat_tables(kept)


def _with_absent(runs: pa.Table) -> pa.Table:
    """Fill columns that a file from before they were added lacks."""
    for name, value in absent_values("runs").items():
        i = runs.schema.get_field_index(name)
        runs = runs.set_column(i, runs.schema.field(i), runs[name].fill_null(value))
    return runs


def _listed(filesystem: fs.FileSystem, path: str) -> list[SweepFolder]:
    try:
        return find_sweeps(filesystem, path)
    except (pa.ArrowException, OSError) as error:
        raise ResultsError(f"cannot list {path}: {first_line(error)}") from error


def _named_sweeps(found: list[SweepFolder], sweep: str | Sequence[str] | None) -> list[SweepFolder]:
    """Keep the sweeps of these names. Raises `ResultsError` naming one that is not there."""
    if sweep is None:
        return found
    names = [sweep] if isinstance(sweep, str) else list(sweep)
    known = sorted({one.name for one in found})
    for name in names:
        if name not in known:
            raise ResultsError(f"sweep: no sweep '{name}' here; there are {known}")
    return [one for one in found if one.name in names]


def _chosen_steps(
    found: Sequence[SweepFolder], chosen: Mapping[str, int], problems: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Step files by run, from the sweep that it is taken from, without runs that have a bad one."""
    files = {run: readable_steps(found[place], run, problems) for run, place in chosen.items()}
    return {run: these for run, these in files.items() if these is not None}


def _add_running(
    runs: pa.Table,
    found: Sequence[SweepFolder],
    chosen: Mapping[str, int],
    steps: Mapping[str, tuple[str, ...]],
) -> pa.Table:
    """Append a row of status `running`, otherwise null, for each run with steps but no row."""
    ended = set(runs["run_id"].to_pylist())
    waiting = [
        {"run_id": run_id, "sweep": found[chosen[run_id]].name, "status": "running"}
        for run_id in steps
        if run_id not in ended
    ]
    if not waiting:
        return runs
    return pa.concat_tables([runs, pa.Table.from_pylist(waiting, schema=runs.schema)])


def _sorted_runs(frame: pd.DataFrame) -> pd.DataFrame:
    order = ["sweep", "workload", "criterion", "rule", "lr", "seed", "run_id"]
    attrs = frame.attrs
    frame = frame.sort_values(order, kind="stable", ignore_index=True)
    frame.attrs = attrs
    return frame


def _check_rows(table: pa.Table, run_id: str, folder: str) -> None:
    """Refuse rows of another run and rows that are there twice."""
    others = pc.unique(table["run_id"]).to_pylist()
    if others not in ([], [run_id]):
        other = next(o for o in others if o != run_id)
        raise ResultsError(f"{folder}: holds rows of another run, {other!r}")
    keys = pa.table({"step": table["step"], "process": table["process"]})
    if keys.group_by(["step", "process"]).aggregate([]).num_rows < keys.num_rows:
        raise ResultsError(f"{folder}: holds rows twice (same step and process)")
