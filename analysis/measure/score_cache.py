"""Scores of runs, kept beside the results: who analyses again reads only what is new.

A file `analysis/scores-VERSION-CONTENT.parquet` in a sweep's folder holds a table of scored runs.
VERSION is of everything that a score depends on but the run: the metrics' code, the bandwidths.
Each row says which run, and what of it, was scored: `row`, a hash of what the table `runs` says of
how it ended, and `files`, the size and time of its files of steps. Where the scores of a run cannot
be had here, for whatever reason, they are computed.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from analysis.measure.metrics import all_metrics
from analysis.measure.scored import Plan
from analysis.read import Results, is_part, processes_of, without_attrs

FOLDER = "analysis"
_NAME = re.compile(r"scores-([0-9a-f]{16})-[0-9a-f]{16}\.parquet")
_ENDING = ("status", "status_detail", "num_params", "wall_s", "compile_s", "commit", "data")
_SMALL, _MANY = 250, 20  # runs of a small file; small files that are put together
_VERSIONS = 3  # whose scores are kept: with another bandwidth, or other metrics


class _Mark(NamedTuple):
    """What of a run was scored."""

    row: str
    files: str


class ScoreCache:
    """Scores of the runs of some results, in the folders of their sweeps.

    Args:
        results: whose runs are scored.
        plan: what is computed of each.
        sampled: runs whose scores are of use only with what a study has beside the metrics.
    """

    def __init__(self, results: Results, plan: Plan, sampled: Collection[str]) -> None:
        self._sampled = frozenset(sampled)
        self._reader, self._filesystem = results.reader, results.reader.filesystem
        self._schema, self._version = plan.schema, version(results, plan)
        self._rows = _rows_hashed(results.runs)
        self._marks: dict[str, _Mark] = {}
        self._used: dict[str, int] = {}  # runs taken from each file
        self._has_failed = False

    def tables(self, run_ids: Iterable[str]) -> Iterator[pa.Table]:
        """Yield the scores that are here of some runs, every run once."""
        wanted = [run_id for run_id in run_ids if run_id in self._reader.step_files]
        files = self._reader.file_marks(wanted)
        self._marks = {run_id: _Mark(self._rows[run_id], files[run_id]) for run_id in wanted}
        waiting = set(wanted)
        for folder in sorted({self._folder(run_id) for run_id in wanted}):
            for file in self._listed(folder):
                table = self._read(file, waiting)
                found = set(table["run_id"].to_pylist()) if table is not None else set()
                self._used[file] = len(found)
                waiting -= found
                if table is not None and found:
                    yield table

    def keep(self, scored: pa.Table) -> None:
        """Leave the scores of runs of one sweep here, in a file of their own, if it can be."""
        if len(scored) and not self._has_failed:
            try:
                self._write(scored)
            except (OSError, pa.ArrowException):
                self._has_failed = True  # a folder that is only read, say: never an error

    def tidy(self) -> None:
        """Put many small files together, and drop those of no use: replaced, or of old versions."""
        try:
            for folder in sorted({self._folder(run_id) for run_id in self._marks}):
                self._tidy(folder)
        except (OSError, pa.ArrowException):
            self._has_failed = True

    def _write(self, scored: pa.Table) -> None:
        run_ids = scored["run_id"].to_pylist()
        for i, name in enumerate(_Mark._fields):
            marks = pa.array([self._marks[run_id][i] for run_id in run_ids]).dictionary_encode()
            scored = scored.append_column(name, marks)
        sink = pa.BufferOutputStream()
        pq.write_table(scored, sink, compression="zstd", write_page_checksum=True)
        keys = repr([(run_id, self._marks[run_id]) for run_id in dict.fromkeys(run_ids)])
        name = f"scores-{self._version}-{_digest(keys.encode())}.parquet"
        folder = self._folder(run_ids[0])
        self._filesystem.create_dir(folder)
        file = f"{folder}/{name}"
        # An object appears whole; a file is given its name when it is.
        local = isinstance(self._filesystem, fs.LocalFileSystem)
        place = f"{folder}/_{os.getpid()}-{name}" if local else file
        with self._filesystem.open_output_stream(place) as out:
            out.write(sink.getvalue())
        if local:
            self._filesystem.move(place, file)
        self._used[file] = len(set(run_ids))

    def _read(self, file: str, waiting: Collection[str]) -> pa.Table | None:
        """Rows of a file that say what would be computed now; None if it cannot be read."""
        try:
            with self._filesystem.open_input_file(file) as source:
                table = pq.read_table(source, page_checksum_verification=True, use_threads=False)
            marks = [table[name].to_pylist() for name in ("run_id", *_Mark._fields)]
            table = table.select(self._schema.names).cast(self._schema)
        except (OSError, pa.ArrowException, KeyError, ValueError):
            return None
        has_all = [True] * len(table)
        if "is_sampled" in self._schema.names:
            has_all = table["is_sampled"].to_pylist()
        keep = [
            run_id in waiting
            and (whole or run_id not in self._sampled)
            and self._agree(_Mark(row, files), self._marks[run_id])
            for run_id, row, files, whole in zip(*marks, has_all, strict=True)
        ]
        return table.filter(pa.array(keep, pa.bool_()))

    def _agree(self, before: _Mark, now: _Mark) -> bool:
        if before.row != now.row:
            return False
        first, other = before.files.partition(":")[0], now.files.partition(":")[0]
        # Folded since: the same rows are in another file, which only ended runs are moved to.
        return before.files == now.files or (first != other and is_part(other))

    def _tidy(self, folder: str) -> None:
        mine = {file: n for file, n in self._used.items() if file.startswith(f"{folder}/")}
        small = [file for file, n in mine.items() if 0 < n < _SMALL]
        if len(small) > _MANY:
            waiting = set(self._marks)
            tables = []
            for file in small:
                table = self._read(file, waiting)
                if table is not None:
                    waiting -= set(table["run_id"].to_pylist())
                    tables.append(table)
            for some in _of_runs(pa.concat_tables(tables), 2 * _SMALL):
                self._write(some)
            mine |= dict.fromkeys(small, 0)
        for file in [file for file, n in mine.items() if n == 0] + self._outdated(folder):
            self._filesystem.delete_file(file)

    def _outdated(self, folder: str) -> list[str]:
        """Files of all versions but the newest few."""
        newest: dict[str, Any] = {}
        files: list[tuple[str, str]] = []
        for info in self._filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True)):
            if (match := _NAME.fullmatch(info.base_name)) is not None:
                files.append((match[1], info.path))
                newest[match[1]] = max(newest.get(match[1], 0), info.mtime_ns or 0)
        newest.pop(self._version, None)
        kept = {self._version, *sorted(newest, key=lambda v: newest[v])[-(_VERSIONS - 1) :]}
        return [file for version_, file in files if version_ not in kept]

    def _listed(self, folder: str) -> list[str]:
        try:
            selector = fs.FileSelector(folder, allow_not_found=True)
            infos = self._filesystem.get_file_info(selector)
        except (OSError, pa.ArrowException):
            return []
        start = f"scores-{self._version}-"
        return sorted(i.path for i in infos if i.is_file and i.base_name.startswith(start))

    def _folder(self, run_id: str) -> str:
        return f"{self._reader.home(run_id)}/{FOLDER}"


def version(results: Results, plan: Plan) -> str:
    """Hash what scores depend on beside the run: metrics' code, bandwidths, processes, filters."""
    here = Path(__file__).resolve().parent
    ours = [*sorted(here.rglob("*.py")), here.parent / "read" / "trace.py"]
    facts = [repr(plan), repr(plan.schema), repr(sorted(processes_of(results.runs).items()))]
    facts += [repr(results.reader.conditions), *(file.read_text() for file in ours)]
    for one in all_metrics():
        facts.append(repr((one.name, one.reads, one.smoothed, one.censored)))
        facts += [code_of(function) for function in (one.function, *one.also.values())]
    return _digest("\0".join(facts).encode())


def code_of(function: Callable[..., Any]) -> str:
    """Write out what a function computes: its module's text, or its own code and what that uses.

    A module's text holds the other functions that it calls; a notebook has none.

    >>> code_of(lambda run: 1.0) == code_of(lambda run: 2.0)
    False
    """
    return "\0".join(_code(function, set()))


def _code(function: Any, seen: set[int]) -> Iterator[str]:
    function = inspect.unwrap(function) if callable(function) else function
    if id(function) in seen:
        return
    seen.add(id(function))
    code = getattr(function, "__code__", None)
    if code is None:
        yield repr(type(function)) + repr(getattr(function, "__dict__", function))
        return
    source = Path(code.co_filename)
    yield source.read_text(errors="replace") if source.is_file() else ""
    yield from _instructions(code)
    cells = [c.cell_contents for c in function.__closure__ or ()]
    for value in (*cells, *(function.__defaults__ or ())):
        yield from _code(value, seen) if hasattr(value, "__code__") else [repr(value)]
    for name in code.co_names:
        value = function.__globals__.get(name)
        if getattr(value, "__module__", None) == function.__module__ and hasattr(value, "__code__"):
            yield from _code(value, seen)


def _instructions(code: CodeType) -> Iterator[str]:
    yield repr((code.co_code, code.co_names))
    for constant in code.co_consts:
        yield from _instructions(constant) if isinstance(constant, CodeType) else [repr(constant)]


def _rows_hashed(runs: pd.DataFrame) -> Mapping[str, str]:
    """Hash of each run's row of `runs`, so far as it tells one ending of the run from another."""
    ending = without_attrs(runs[[name for name in _ENDING if name in runs]])
    hashes = pd.util.hash_pandas_object(ending.astype("str"), index=False)
    return {str(r): f"{h:016x}" for r, h in zip(runs["run_id"], hashes, strict=True)}


def _of_runs(scored: pa.Table, most: int) -> Iterator[pa.Table]:
    """Cut a table of scored runs into tables of so many runs."""
    run_ids = scored["run_id"].unique()
    for i in range(0, len(run_ids), most):
        yield scored.filter(pc.is_in(scored["run_id"], run_ids[i : i + most]))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
