"""Opening a results folder: `load`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import fs

from analysis.read.declared import (
    declared_columns,
    declared_processes,
    first_values,
    united_schema,
)
from analysis.read.file_checks import read_footers
from analysis.read.filter import Condition, no_match, parse_where, to_expression
from analysis.read.folded import with_folded_runs
from analysis.read.folders import (
    BadFileError,
    OvertakenError,
    ResultsError,
    SweepFolder,
    exists,
    find_sweeps,
    first_line,
    open_location,
)
from analysis.read.frames import to_frame
from analysis.read.results import Results
from analysis.read.same_runs import choose_sweeps, readable_steps
from analysis.read.steps import StepReader, check_columns
from cflows_ray.schema import absent_values

Where = Mapping[str, Any] | Sequence[tuple[str, str, Any]]

_TRIES = 4  # at a folder whose files are being folded

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

    Files may differ in columns that this package does not know, such as hyperparameters of further
    rules: they are united by name, and null where a file has none.

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
    filesystem, path = open_location(path_or_uri)
    found, contents, rows = _read_sweeps(filesystem, path, sweep, skip=on_bad_file == "skip")
    run_conditions, step_conditions = parse_where(where, contents.runs, contents.steps)
    wanted = None if columns is None else check_columns(columns, contents.steps)
    runs, steps = _runs_and_steps(found, rows, run_conditions, contents)
    return Results(
        location=os.fspath(path_or_uri),
        runs=_runs_frame(runs, contents),
        reader=StepReader(filesystem, steps, contents.steps, step_conditions),
        _columns=wanted,
        _skip=on_bad_file == "skip",
        _problems=contents.problems,
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


def _read_sweeps(
    filesystem: fs.FileSystem, path: str, sweep: str | Sequence[str] | None, *, skip: bool
) -> tuple[list[SweepFolder], _Contents, list[pa.Table]]:
    """List the sweeps, read all footers and rows of `runs`; again if a fold has overtaken it."""
    for _ in range(_TRIES - 1):
        try:
            return _read_sweeps_once(filesystem, path, sweep, skip=skip)
        except OvertakenError:
            continue
    return _read_sweeps_once(filesystem, path, sweep, skip=skip)


def _read_sweeps_once(
    filesystem: fs.FileSystem, path: str, sweep: str | Sequence[str] | None, *, skip: bool
) -> tuple[list[SweepFolder], _Contents, list[pa.Table]]:
    listed = _named_sweeps(_listed(filesystem, path), sweep)
    contents = _check_sweeps(listed, skip=skip)
    found = [with_folded_runs(one, contents.problems) for one in listed]
    return found, contents, [_read_runs(one, contents) for one in found]


def _runs_and_steps(
    found: Sequence[SweepFolder],
    read: Sequence[pa.Table],
    conditions: Sequence[Condition],
    contents: _Contents,
) -> tuple[pa.Table, dict[str, tuple[str, ...]]]:
    """Rows of `runs` that meet the conditions, and the files of each run's steps."""
    # A run in several sweeps belongs to one; which one, a condition on the sweep may decide.
    of_sweeps = [c for c in conditions if c.column == "sweep"]
    of_runs = [c for c in conditions if c.column != "sweep"]
    problems = contents.problems
    rows = [_filtered(table, of_sweeps) for table in read]
    chosen = choose_sweeps(found, [_statuses(table) for table in rows], problems)
    steps = _chosen_steps(found, chosen, problems)
    kept = _chosen_rows(rows, chosen)
    runs = _filtered(kept, of_runs)
    everything = kept if kept.num_rows else pa.concat_tables(read)
    if conditions and everything.num_rows and not runs.num_rows:
        raise ResultsError(no_match(everything, conditions))
    return runs if conditions else _add_running(runs, found, chosen, steps), steps


class _Contents(NamedTuple):
    """What the footers of all files say: bad files, schemas of both tables, what they declare."""

    problems: dict[str, str]
    runs: pa.Schema
    steps: pa.Schema
    step_schemas: list[pa.Schema]


def _check_sweeps(found: list[SweepFolder], *, skip: bool) -> _Contents:
    problems: dict[str, str] = {}
    total = 0
    schemas: dict[str, list[pa.Schema]] = {"runs": [], "steps": []}
    for sweep in found:
        singles = [file for files in sweep.step_files.values() for file in files]
        for table, files in (("runs", sweep.run_files), ("steps", (*sweep.step_parts, *singles))):
            footers = read_footers(sweep.filesystem, files, table)
            problems |= footers.problems
            schemas[table] += footers.schemas
            total += len(files)
    if problems and (not skip or len(problems) == total):
        file, problem = next(iter(problems.items()))
        more = f" (and {len(problems) - 1} more bad files)" if len(problems) > 1 else ""
        raise BadFileError(file, problem + more)
    runs, steps = (united_schema(table, schemas[table]) for table in ("runs", "steps"))
    return _Contents(problems, runs, steps, schemas["steps"])


def _runs_frame(runs: pa.Table, contents: _Contents) -> pd.DataFrame:
    """Frame of the table `runs`, sorted, that tells in `attrs` what its columns are."""
    frame = to_frame(runs, "runs")
    attrs = frame.attrs | declared_columns(contents.runs)
    flows = {name for text in frame["flows"].dropna().unique() for name in text.split(",") if name}
    attrs["processes"] = declared_processes(contents.step_schemas, flows)
    order = ["sweep", "workload", "criterion", "rule", "lr", "seed", "run_id"]
    frame = frame.sort_values(order, kind="stable", ignore_index=True)
    frame.attrs = attrs
    return frame


def _read_runs(sweep: SweepFolder, contents: _Contents) -> pa.Table:
    """Rows of all good `runs` files of a sweep, one per run; null in columns that a file lacks.

    Raises `OvertakenError` if a file has vanished since it was listed.
    """
    files = [f for f in sweep.run_files if f not in contents.problems]
    if not files:
        return contents.runs.empty_table()
    try:
        source = ds.dataset(
            files, schema=contents.runs, format="parquet", filesystem=sweep.filesystem
        )
        return _with_absent(_first_of_each_run(source.to_table()))
    except (pa.ArrowException, OSError) as error:
        for file in files:
            if not exists(sweep.filesystem, file):
                raise OvertakenError(file) from error
        raise ResultsError(f"{sweep.path}/runs: corrupt file: {first_line(error)}") from error


def _first_of_each_run(runs: pa.Table) -> pa.Table:
    """Keep one row per run: while it is folded, its own file and the part may both be there."""
    again = pd.Series(runs["run_id"].to_pylist(), dtype="str").duplicated()
    return runs.filter(pa.array(~again.to_numpy())) if again.any() else runs


def _filtered(table: pa.Table, conditions: Iterable[Condition]) -> pa.Table:
    keep = to_expression(conditions)
    return table if keep is None else table.filter(keep)


def _statuses(runs: pa.Table) -> dict[str, str]:
    return dict(zip(runs["run_id"].to_pylist(), runs["status"].to_pylist(), strict=True))


def _chosen_rows(rows: Sequence[pa.Table], chosen: Mapping[str, int]) -> pa.Table:
    """One row per run, from the sweep that it is taken from."""
    kept = []
    for place, table in enumerate(rows):
        ids = table["run_id"].to_pylist()
        mine = [i for i, run_id in enumerate(ids) if chosen[run_id] == place]
        kept.append(table.take(pa.array(mine, pa.int64())))
    return pa.concat_tables(kept)


def _with_absent(runs: pa.Table) -> pa.Table:
    """Fill columns that a file from before they were added lacks: with what held for its rule."""
    for name, value in absent_values("runs").items():
        i = runs.schema.get_field_index(name)
        runs = runs.set_column(i, runs.schema.field(i), runs[name].fill_null(value))
    for i, found in enumerate(runs.schema):
        for rule, value in first_values(found).items():
            ours = pc.and_(pc.is_null(runs[i]), pc.equal(runs["rule"], rule))
            runs = runs.set_column(
                i, found, pc.if_else(ours, pa.scalar(value, found.type), runs[i])
            )
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
