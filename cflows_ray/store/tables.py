"""The two result tables of a sweep on storage; the only writer of Parquet.

    <sweep>/sweep.json                           the sweep as it was last launched
    <sweep>/runs/<run_id>.parquet                one row: the run has ended (completion marker)
    <sweep>/steps/<run_id>/part-<first>.parquet  rows from step <first> on

While a run goes on, every checkpoint adds a part; when it ends they are merged into one. All names
are functions of run and step, every file appears at once and whole, and a part is written before
the checkpoint that follows it, so a run that restarts from a checkpoint at step s deletes the
parts that start at s or later and writes them again. At no moment do two files hold the same row.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cflows_ray.flows import FLOWS, steps_columns
from cflows_ray.rules import hyperparameter_columns
from cflows_ray.schema import SCHEMA_VERSION, absent_values, arrow_schema
from cflows_ray.store.storage import Storage

MERGED = "_merged.parquet"
FIRST_PART = "part-00000000.parquet"
# What pyarrow raises for damaged bytes (`ArrowInvalid` is a `ValueError`).
DAMAGE = (ValueError, OSError, pa.ArrowException)


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
        text = json.dumps({"schema": SCHEMA_VERSION, **record}, indent=1, sort_keys=True)
        self._storage.write("sweep.json", text.encode())

    def read_sweep(self) -> dict[str, Any] | None:
        """Return sweep.json, or None if the sweep was never launched.

        Raises `OtherSchema` if another version of the tables lies here.
        """
        try:
            record: dict[str, Any] = json.loads(self._storage.read("sweep.json"))
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
        table = pa.Table.from_pylist([dict(row)], schema=runs_schema())
        self._storage.write(f"runs/{row['run_id']}.parquet", _parquet_bytes(table))

    def has_run(self, run_id: str) -> bool:
        """Whether the run has ended."""
        return self._storage.exists(f"runs/{run_id}.parquet")

    def forget_run(self, run_id: str) -> None:
        """Delete a run's row and steps, so that it can run again."""
        self._storage.delete(f"runs/{run_id}.parquet")
        self._storage.delete_folder(f"steps/{run_id}")

    def finished(self) -> dict[str, dict[str, Any]]:
        """Return the rows of all runs that have ended, by run id; unreadable ones are left out."""
        names = [n for n in self._storage.names("runs") if _is_table(n)]
        with ThreadPoolExecutor(max_workers=16) as pool:
            rows = pool.map(self.read_run, (name.removesuffix(".parquet") for name in names))
            return {row["run_id"]: row for row in rows if row is not None}

    def read_run(self, run_id: str) -> dict[str, Any] | None:
        """Return a run's row; None if there is none, or none that can be read."""
        try:
            data = self._storage.read(f"runs/{run_id}.parquet")
        except FileNotFoundError:  # deleted since it was listed
            return None
        try:
            return absent_values("runs") | _table(data).to_pylist()[0]
        except (*DAMAGE, IndexError):
            return None

    def ended_since(self, run_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the rows, by run id, of those runs that have one by now.

        What is left of a run whose row can't be read is deleted, so that it can run again.
        """
        found = set(self._storage.names("runs"))
        rows = {}
        for run_id in run_ids:
            if f"{run_id}.parquet" not in found:
                continue
            row = self.read_run(run_id)
            if row is None:
                self.forget_run(run_id)
            else:
                rows[run_id] = row
        return rows

    # The steps table ------------------------------------------------------------------------

    def write_part(self, run_id: str, tables: Iterable[pa.Table]) -> str:
        """Write rows of a run as the part that starts at their first step; return its name."""
        table = pa.concat_tables(tables)
        name = f"part-{table['step'][0].as_py():08d}.parquet"
        self._storage.write(f"steps/{run_id}/{name}", _parquet_bytes(table))
        return name

    def parts(self, run_id: str) -> list[str]:
        """Names of a run's parts, in the order of their steps."""
        return [n for n in self._storage.names(f"steps/{run_id}") if _is_table(n)]

    def progress(self) -> dict[str, int]:
        """Return, for every run with rows, the first step of its last part."""
        names = [n for n in self._storage.names("steps", recursive=True) if _is_table(n)]
        return {n.split("/")[0]: _first_step(n) for n in names}

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
            self._storage.write(f"{folder}/{MERGED}", _parquet_bytes(table))
        for name in self._storage.names(folder):
            if name != MERGED:
                self._storage.delete(f"{folder}/{name}")
        self._storage.move(f"{folder}/{MERGED}", f"{folder}/{FIRST_PART}")

    def tidy(self, finished: Iterable[str]) -> None:
        """Delete what a process cut off from its driver may have written to ended runs."""
        ended = set(finished)
        for path in self._storage.names("steps", recursive=True):
            run_id, _, name = path.partition("/")
            if run_id in ended and name != FIRST_PART:
                self._storage.delete(f"steps/{path}")

    def _read_parts(self, run_id: str, parts: Iterable[str]) -> pa.Table:
        tables = []
        for name in parts:
            try:
                data = self._storage.read(f"steps/{run_id}/{name}")
            except FileNotFoundError as error:
                raise ResultsDamaged(f"steps/{run_id}/{name} is gone") from error
            try:
                tables.append(_table(data).cast(steps_schema()))
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


def _parquet_bytes(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    # without checksums, a flipped bit may read back as another number
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def _table(data: bytes) -> pa.Table:
    """Return the table in a Parquet file's bytes.

    In this thread: pyarrow's own readers let go of the bytes in a thread of theirs, perhaps only
    when Python has gone, which ends the process with an abort after all its work is done.
    """
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    return file.read(use_threads=False)


def _is_table(path: str) -> bool:
    """Whether a path is a finished table, not something that readers ignore."""
    name = path.rsplit("/", 1)[-1]
    return name.endswith(".parquet") and not name.startswith(("_", "."))


def _first_step(path: str) -> int:
    return int(path.rsplit("part-", 1)[1].removesuffix(".parquet"))
