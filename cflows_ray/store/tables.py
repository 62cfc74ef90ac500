"""The two result tables of a sweep on storage.

    <sweep>/sweep.json                           the sweep as it was last launched
    <sweep>/runs/<run_id>.parquet                one row: the run has ended (completion marker)
    <sweep>/steps/<run_id>/part-<first>.parquet  rows from step <first> on
    <sweep>/{runs,steps}/part-<hash>.parquet     rows of many ended runs (`folding.py`)

While a run goes on, every checkpoint adds a part; when it ends they are merged into one. All names
are functions of run and step, every file appears at once and whole, and a part is written before
the checkpoint that follows it, so a run that restarts from a checkpoint at step s deletes the
parts that start at s or later and writes them again. At no moment do two files hold the same row.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
import pyarrow as pa

from cflows_ray.flows import FLOWS, steps_columns
from cflows_ray.rules import hyperparameter_columns
from cflows_ray.schema import SCHEMA_VERSION, arrow_schema
from cflows_ray.store import folding
from cflows_ray.store.folding import FIRST_PART, PART, PENDING
from cflows_ray.store.parquet import DAMAGE, from_bytes, is_table, rows_of, to_bytes
from cflows_ray.store.storage import Storage
from cflows_ray.store.sweep_json import dump_sweep, load_sweep

# No reader of "*.parquet" looks at it.
MERGED = "_merged"


class ResultsDamaged(RuntimeError):
    """The rows of a run on storage have a gap, an overlap or an unreadable file."""


class OtherSchema(RuntimeError):
    """The results on storage were written with another version of the tables."""


class Results:
    """Reads and writes one sweep's tables.

    Example:
        >>> import tempfile
        >>> Results(Storage(tempfile.mkdtemp())).finished()
        {}
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    # The sweep ------------------------------------------------------------------------------

    def write_sweep(self, record: Mapping[str, Any]) -> None:
        """Write sweep.json."""
        self._storage.write("sweep.json", dump_sweep(record).encode())

    def read_sweep(self) -> dict[str, Any] | None:
        """Return sweep.json, or None if the sweep was never launched.

        Raises `OtherSchema` if another version of the tables lies here.
        """
        try:
            record = load_sweep(self._storage.read("sweep.json"))
        except FileNotFoundError:
            return None
        found = record.get("schema")
        if found != SCHEMA_VERSION:
            raise OtherSchema(
                f"storage must hold tables of schema {SCHEMA_VERSION!r}, "
                f"got {found!r} in {self._storage.location}; choose another folder or sweep name"
            )
        return record

    # The runs table -------------------------------------------------------------------------

    def write_run(self, row: Mapping[str, Any]) -> None:
        """Write a run's row: from then on the run counts as ended."""
        schema = runs_schema()
        table = pa.Table.from_pylist([dict(row)], schema=schema)
        self._storage.write(f"runs/{row['run_id']}.parquet", to_bytes([table], schema))

    def has_run(self, run_id: str, folded: bool = True) -> bool:
        """Whether the run has ended; without `folded`, whether its row has a file of its own.

        First its own file, then the parts: the way that a row takes.
        """
        if self._storage.exists(f"runs/{run_id}.parquet"):
            return True
        return folded and folding.find(self._storage, "runs", run_id) is not None

    def forget_runs(self, run_ids: Collection[str]) -> None:
        """Delete the rows and steps of runs, so that they can run again.

        A part that has rows of several is written once.
        """
        folding.forget(self._storage, set(run_ids))
        for run_id in run_ids:
            self._storage.delete(f"runs/{run_id}.parquet")
            self._storage.delete_folder(f"steps/{run_id}")

    def finished(self, columns: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        """Return the rows of all runs that have ended, by run id, or some of their columns.

        Single files that can't be read are left out. Sees every row also in the middle of a fold:
        whatever vanishes while it reads is found where it has gone to.

        Raises `StorageError` for a folded part that can't be read.
        """
        wanted = None if columns is None else list(dict.fromkeys(["run_id", *columns]))
        rows: dict[str, dict[str, Any]] = {}
        read: set[str] = set()
        while names := [n for n in self._storage.names("runs") if _holds_rows(n) and n not in read]:
            read.update(names)
            singles = [n for n in names if is_table(n) and not PART.fullmatch(n)]
            # in the order in which a row moves
            for group in (singles, *(filter(p.fullmatch, names) for p in (PENDING, PART))):
                with ThreadPoolExecutor(max_workers=16) as pool:
                    for found in pool.map(lambda n: self._rows(n, wanted), group):
                        rows |= {row["run_id"]: row for row in found}
        return rows

    def _rows(self, name: str, columns: Sequence[str] | None) -> list[dict[str, Any]]:
        """Return the rows of a file of the runs table; none if it has gone, or is damaged."""
        try:
            if is_table(name) and not PART.fullmatch(name):
                data = self._storage.read(f"runs/{name}")
                try:
                    return rows_of(from_bytes(data, columns), "runs", columns)
                except DAMAGE:
                    return []
            return rows_of(folding.read_part(self._storage, "runs", name, columns), "runs", columns)
        except FileNotFoundError:
            return []

    def read_run(self, run_id: str) -> dict[str, Any] | None:
        """Return a run's row; None if there is none, or none that can be read."""
        single = f"{run_id}.parquet"
        name = single
        if not self._storage.exists(f"runs/{single}"):
            name = folding.find(self._storage, "runs", run_id) or single
        rows = self._rows(name, None)
        return next((row for row in rows if row["run_id"] == run_id), None)

    def ended_since(
        self, run_ids: Iterable[str], columns: Sequence[str] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Return the rows (or some columns), by run id, of those runs that have one by now.

        For the driver that holds the lock: finishes a fold that was cut short, and deletes what is
        left of a run whose row can't be read, so that it can run again.
        """
        folding.finish_interrupted(self._storage)
        asked = set(run_ids)
        singles = {n.removesuffix(".parquet") for n in self._storage.names("runs") if is_table(n)}
        rows = {i: row for i, row in self.finished(columns).items() if i in asked}
        self.forget_runs(sorted((singles & asked) - set(rows)))
        return rows

    # The steps table ------------------------------------------------------------------------

    def write_part(self, run_id: str, tables: Iterable[pa.Table]) -> str:
        """Write rows of a run as the part that starts at their first step; return its name."""
        table = pa.concat_tables(tables)
        name = f"part-{table['step'][0].as_py():08d}.parquet"
        self._storage.write(f"steps/{run_id}/{name}", to_bytes([table], table.schema))
        return name

    def parts(self, run_id: str) -> list[str]:
        """Names of a run's parts, in the order of their steps."""
        return [n for n in self._storage.names(f"steps/{run_id}") if is_table(n)]

    def rewind(self, run_id: str, parts: Iterable[str]) -> bool:
        """Delete all rows of a run but the named parts; return whether those are all there."""
        kept = set(parts)
        found = set(self._storage.names(f"steps/{run_id}"))
        for name in sorted(found - kept):
            self._storage.delete(f"steps/{run_id}/{name}")
        return kept <= found

    def merge(self, run_id: str, parts: list[str], num_rows: int) -> None:
        """Merge a run's parts into one file; may be cut short and called again at any moment.

        The merged file gets a name that readers ignore, then the parts go, then it gets its real
        name: a reader sees fewer rows for an instant, but never a row twice.

        Raises `ResultsDamaged` unless there are `num_rows` different rows in all.
        """
        folder = f"steps/{run_id}"
        if not self._storage.exists(f"{folder}/{MERGED}"):
            found = self.parts(run_id)
            # A merge that was cut short after its end has left one file; never fewer parts else.
            done = found == [FIRST_PART]
            if not done and not self.rewind(run_id, parts):
                raise ResultsDamaged(f"{folder} lacks parts")
            if not parts:
                return
            table = self._read_parts(run_id, [FIRST_PART] if done else parts)
            _check_rows(table, run_id, num_rows)
            if done:
                return
            self._storage.write(f"{folder}/{MERGED}", to_bytes([table], table.schema))
        for name in self._storage.names(folder):
            if name != MERGED:
                self._storage.delete(f"{folder}/{name}")
        self._storage.move(f"{folder}/{MERGED}", f"{folder}/{FIRST_PART}")

    def tidy(self, finished: Iterable[str]) -> None:
        """Delete what a process cut off from its driver may have written to ended runs.

        For the driver that holds the lock; finishes a fold that was cut short, too.
        """
        ended = set(finished)
        for path in self._storage.names("steps", recursive=True):
            run_id, slash, name = path.partition("/")
            if slash and run_id in ended and name != FIRST_PART:
                self._storage.delete(f"steps/{path}")
        folding.sweep_up(self._storage)

    def _read_parts(self, run_id: str, parts: Iterable[str]) -> pa.Table:
        tables = []
        for name in parts:
            try:
                data = self._storage.read(f"steps/{run_id}/{name}")
            except FileNotFoundError as error:
                raise ResultsDamaged(f"steps/{run_id}/{name} is gone") from error
            try:
                tables.append(from_bytes(data).cast(steps_schema()))
            except DAMAGE as error:
                raise ResultsDamaged(f"steps/{run_id}/{name} can't be read: {error}") from error
        return pa.concat_tables(tables)


def runs_schema() -> pa.Schema:
    """Return the Arrow schema of the `runs` table, hyperparameters of all rules included."""
    return arrow_schema("runs", hyperparameter_columns())


def steps_schema() -> pa.Schema:
    """Return the Arrow schema of the `steps` table, columns of all processes included."""
    labels = {name: {"label": FLOWS[name].label} for name in FLOWS}
    schema = arrow_schema("steps", steps_columns())
    return schema.with_metadata(
        {**(schema.metadata or {}), b"cflows_ray.processes": json.dumps(labels)}
    )


def steps_table(run_id: str, frame: pd.DataFrame) -> pa.Table:
    """Turn a paired run's rows into the `steps` table; what pandas calls missing becomes null.

    Raises `ValueError` if a column is missing or unknown.
    """
    schema = steps_schema()
    expected = set(schema.names) - {"run_id"}
    if set(frame.columns) != expected:
        difference = sorted(set(frame.columns) ^ expected)
        raise ValueError(
            f"a paired run's rows must have the columns of `steps`, not so {difference}"
        )
    full = frame.assign(run_id=run_id)[schema.names]
    return pa.Table.from_pandas(full, schema=schema, preserve_index=False).replace_schema_metadata(
        schema.metadata
    )


def _check_rows(table: pa.Table, run_id: str, num_rows: int) -> None:
    """Raise `ResultsDamaged` unless the table has `num_rows` rows, none of them twice."""
    keys = table.select(["step", "process"]).group_by(["step", "process"]).aggregate([])
    if table.num_rows != num_rows or keys.num_rows != num_rows:
        raise ResultsDamaged(
            f"steps/{run_id} must hold {num_rows} rows, got {table.num_rows} "
            f"({keys.num_rows} different ones)"
        )


def _holds_rows(name: str) -> bool:
    """Whether a file of the runs table holds rows that no other will hold when it has gone."""
    return is_table(name) or PENDING.fullmatch(name) is not None
