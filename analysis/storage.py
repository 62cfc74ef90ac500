"""Where results lie: folders and object stores, Parquet files, and what may be wrong with them.

A sweep's folder holds `runs/<run_id>.parquet` (one row, written when the run has ended) and
`steps/<run_id>/part-<first_step>.parquet` (a folder `run_id=<run_id>` is understood too). Names
that begin with `_` or `.` are files being written and are ignored. A location is a local path or
any URI that `pyarrow.fs` opens.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from cflows_ray.schema import SCHEMA_VERSION, TABLES

_MAGIC = b"PAR1"
_CHECK_THREADS = 8
_GOOGLE_RETRY_S = 20  # of one request; Google's own default is a quarter of an hour of silence


class ResultsError(ValueError):
    """A results folder that cannot be used. The message is one line and names the file or field."""


@dataclass(frozen=True)
class SweepFolder:
    """One sweep's folder on a filesystem, with its Parquet files.

    `step_files` maps a run id to its parts in the order of their first steps.
    """

    filesystem: fs.FileSystem
    path: str
    name: str
    run_files: tuple[str, ...]
    step_files: dict[str, tuple[str, ...]]

    def is_empty(self) -> bool:
        """Whether no run has written anything."""
        return not self.run_files and not self.step_files


def open_location(location: str | os.PathLike[str]) -> tuple[fs.FileSystem, str]:
    """Filesystem and path of a local folder or a URI (`s3://`, `gs://`, `file://`, ...).

    Raises `FileNotFoundError` if there is nothing there and `ResultsError` if it is a file or if
    the URI cannot be understood.

    >>> open_location("/no/such/folder")
    Traceback (most recent call last):
    FileNotFoundError: results folder does not exist: /no/such/folder
    """
    text = os.fspath(location)
    try:
        if "://" in text:
            filesystem, path = fs.FileSystem.from_uri(_with_time_limit(text))
            if not path.strip("/"):
                raise ResultsError(f"{text} names no folder; e.g. s3://bucket/results/quickstart")
        else:
            filesystem, path = fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(text))
        info = filesystem.get_file_info(path)
    except (pa.ArrowException, OSError) as error:
        raise ResultsError(f"cannot open {text}: {first_line(error)}") from error
    if info.type == fs.FileType.NotFound:
        raise FileNotFoundError(f"results folder does not exist: {text}")
    if info.type == fs.FileType.File:
        raise ResultsError(f"{text} is a file; give the folder of a sweep, e.g. results/quickstart")
    return filesystem, path.rstrip("/")


def find_sweeps(filesystem: fs.FileSystem, path: str) -> list[SweepFolder]:
    """List the sweep at `path`, or all sweeps directly inside it.

    Raises `ResultsError` if there is none or if none has any file yet.
    """
    if _is_sweep(filesystem, path):
        folders = [path]
    else:
        entries = filesystem.get_file_info(fs.FileSelector(path))
        folders = sorted(
            e.path
            for e in entries
            if e.type == fs.FileType.Directory
            and not _is_hidden(e.path)
            and _is_sweep(filesystem, e.path)
        )
    if not folders:
        raise ResultsError(f"no sweep in {path}: it holds neither runs/ nor steps/")
    sweeps = [_list_sweep(filesystem, folder) for folder in folders]
    filled = [s for s in sweeps if not s.is_empty()]
    if not filled:
        raise ResultsError(f"empty sweep: no run has written anything to {path} yet")
    return filled


def read_sweep_json(sweep: SweepFolder) -> dict[str, Any]:
    """Contents of `sweep.json` (configuration, versions, commit); empty if absent or unreadable."""
    try:
        with sweep.filesystem.open_input_stream(f"{sweep.path}/sweep.json") as stream:
            value = json.loads(stream.read())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def check_files(filesystem: fs.FileSystem, files: Iterable[str], table: str) -> dict[str, str]:
    """Problem, in words, of each file that is not a readable Parquet file of `table`.

    Reads footers only, several files at a time.
    """
    files = list(files)
    with ThreadPoolExecutor(_CHECK_THREADS) as pool:
        problems = pool.map(lambda file: check_file(filesystem, file, table), files)
        return {f: p for f, p in zip(files, problems, strict=True) if p is not None}


def exists(filesystem: fs.FileSystem, file: str) -> bool:
    """Whether the file is there: while a sweep runs, parts are merged and vanish."""
    return bool(filesystem.get_file_info(file).type == fs.FileType.File)


def check_file(filesystem: fs.FileSystem, file: str, table: str) -> str | None:
    """Say what is wrong with a Parquet file of `table`; None if footer and columns are right."""
    try:
        with filesystem.open_input_file(file) as source:
            schema = pq.ParquetFile(source).schema_arrow
    except (pa.ArrowException, OSError) as error:
        return _explain_unreadable(filesystem, file, error) if exists(filesystem, file) else None
    return check_schema(schema, table)


def check_schema(schema: pa.Schema, table: str) -> str | None:
    """Say what keeps an Arrow schema from being that of `table`; None if nothing does.

    Further columns are allowed, and columns added since may be absent. Files without our metadata
    pass if their columns do, so that tables rewritten by other tools can still be read.
    """
    metadata = {k.decode(): v.decode() for k, v in (schema.metadata or {}).items() if k[:1] == b"c"}
    found = metadata.get("cflows_ray.table", table)
    if found != table:
        return f"holds the table '{found}', not '{table}'"
    version = metadata.get("cflows_ray.schema", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        return f"has results schema '{version}'; this version reads schema '{SCHEMA_VERSION}'"
    for column in TABLES[table]:
        index = schema.get_field_index(column.name)
        if index < 0:
            if column.absent is not None:
                continue
            return f"has another schema: the table '{table}' needs a column '{column.name}'"
        if not _same_kind(schema.field(index).type, column.type):
            kind = schema.field(index).type
            return f"has another schema: column '{column.name}' is {kind}, not {column.type}"
    return None


def first_line(error: BaseException) -> str:
    """First line of an error's message, without details for programs and its trailing full stop."""
    lines = str(error).partition(" error_info=")[0].strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _with_time_limit(uri: str) -> str:
    """Let a `gs://` URI that names no `retry_limit_seconds` give up while someone is watching."""
    parts = urlsplit(uri)
    if parts.scheme not in ("gs", "gcs") or "retry_limit_seconds" in parts.query:
        return uri
    limit = f"retry_limit_seconds={_GOOGLE_RETRY_S}"
    return urlunsplit(parts._replace(query=f"{parts.query}&{limit}" if parts.query else limit))


def _same_kind(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_null(found) or found == wanted:
        return True
    if pa.types.is_dictionary(found):
        return _same_kind(found.value_type, wanted)
    if pa.types.is_list(wanted):
        is_list = pa.types.is_list(found) or pa.types.is_large_list(found)
        return is_list and _same_kind(found.value_type, wanted.value_type)
    if pa.types.is_floating(wanted):
        return pa.types.is_floating(found)
    if pa.types.is_integer(wanted):
        return pa.types.is_integer(found)
    return pa.types.is_string(wanted) and pa.types.is_large_string(found)


def _explain_unreadable(filesystem: fs.FileSystem, file: str, error: BaseException) -> str:
    try:
        with filesystem.open_input_file(file) as source:
            size = source.size()
            head = source.read_at(min(4, size), 0)
            tail = source.read_at(min(4, size), max(0, size - 4))
    except OSError:
        return f"cannot be read: {first_line(error)}"
    if size == 0:
        return "is empty (0 bytes), so half-written"
    if head != _MAGIC:
        return "is not a Parquet file"
    if tail != _MAGIC:
        return "is truncated or half-written: it ends without a Parquet footer"
    return f"is corrupt: {first_line(error)}"


def _is_hidden(path: str) -> bool:
    return path.rsplit("/", 1)[-1].startswith(("_", "."))


def _is_sweep(filesystem: fs.FileSystem, path: str) -> bool:
    if exists(filesystem, f"{path}/sweep.json"):
        return True
    infos = filesystem.get_file_info([f"{path}/runs", f"{path}/steps"])
    return any(i.type == fs.FileType.Directory for i in infos)


def _list_sweep(filesystem: fs.FileSystem, path: str) -> SweepFolder:
    run_files = list_parquet(filesystem, f"{path}/runs", recursive=False)
    step_files: dict[str, list[str]] = {}
    for file in list_parquet(filesystem, f"{path}/steps", recursive=True):
        folder = file.rsplit("/", 2)[-2]
        if file.count("/") > path.count("/") + 2:  # not in steps/ itself
            step_files.setdefault(folder.removeprefix("run_id="), []).append(file)
    return SweepFolder(
        filesystem=filesystem,
        path=path,
        name=path.rsplit("/", 1)[-1],
        run_files=tuple(run_files),
        step_files={k: tuple(v) for k, v in sorted(step_files.items())},
    )


def list_parquet(filesystem: fs.FileSystem, folder: str, *, recursive: bool) -> list[str]:
    """List a folder's Parquet files by name, without those that are being written."""
    selector = fs.FileSelector(folder, allow_not_found=True, recursive=recursive)
    return sorted(
        info.path
        for info in filesystem.get_file_info(selector)
        if info.type == fs.FileType.File
        and info.path.endswith(".parquet")
        and not any(part.startswith(("_", ".")) for part in info.path[len(folder) + 1 :].split("/"))
    )
