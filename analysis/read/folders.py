"""Where results lie: folders and object stores, and which Parquet files are there.

A sweep's folder holds `runs/<run_id>.parquet` (one row, written when the run has ended) and
`steps/<run_id>/part-<first_step>.parquet` (a folder `run_id=<run_id>` is understood too). Rows of
many ended runs may have been folded into one file of either table, `part-<hash>.parquet`; while
that takes the place of theirs it is called `_part-<hash>.folding`. All other names that begin with
`_` or `.` are files being written and are ignored. A location is a local path or any URI that
`pyarrow.fs` opens.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
from pyarrow import fs

_PART = re.compile(r"part-([0-9a-f]{16})\.parquet|_part-([0-9a-f]{16})\.folding")
_GOOGLE_RETRY_S = 20  # of one request; Google's own default is a quarter of an hour of silence


class ResultsError(ValueError):
    """A results folder that cannot be used. The message is one line and names the file or field."""


class BadFileError(ResultsError):
    """A file, or the folder of a run's files, that cannot be used, and what is wrong with it."""

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(f"{file}: {problem}")
        self.file, self.problem = file, problem


class OvertakenError(ResultsError):
    """Files of ended runs have been folded, or deleted, between being listed and being read."""

    def __init__(self, file: str) -> None:
        super().__init__(f"{file} has vanished while the folder was opened; try again")


@dataclass(frozen=True)
class SweepFolder:
    """One sweep's folder on a filesystem, with its Parquet files.

    `step_files` maps a run id to the files of its steps in the order of their first steps;
    `step_parts` are files of many runs. `run_files` begins with those of many runs: if a run is in
    several, its row is that of the first.
    """

    filesystem: fs.FileSystem
    path: str
    name: str
    run_files: tuple[str, ...]
    step_files: dict[str, tuple[str, ...]]
    step_parts: tuple[str, ...] = ()

    def is_empty(self) -> bool:
        """Whether no run has written anything."""
        return not (self.run_files or self.step_files or self.step_parts)


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
            filesystem, path = fs.FileSystem.from_uri(with_time_limit(text))
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


def exists(filesystem: fs.FileSystem, file: str) -> bool:
    """Whether the file is there: while a sweep runs, parts are merged and vanish."""
    return bool(filesystem.get_file_info(file).type == fs.FileType.File)


def first_line(error: BaseException) -> str:
    """First line of an error's message, without details for programs and its trailing full stop."""
    lines = str(error).partition(" error_info=")[0].strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def with_time_limit(uri: str) -> str:
    """Let a `gs://` URI that names no `retry_limit_seconds` give up while someone is watching."""
    parts = urlsplit(uri)
    if parts.scheme not in ("gs", "gcs") or "retry_limit_seconds" in parts.query:
        return uri
    limit = f"retry_limit_seconds={_GOOGLE_RETRY_S}"
    return urlunsplit(parts._replace(query=f"{parts.query}&{limit}" if parts.query else limit))


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
    all_steps = list_parquet(filesystem, f"{path}/steps", recursive=True)
    # After the runs' own files: what goes into a part while they are listed is in one of the two.
    run_parts, step_parts = (list_parts(filesystem, f"{path}/{t}") for t in ("runs", "steps"))
    for file in all_steps:
        folder = file.rsplit("/", 2)[-2]
        if file.count("/") > path.count("/") + 2:  # not in steps/ itself
            step_files.setdefault(folder.removeprefix("run_id="), []).append(file)
    return SweepFolder(
        filesystem=filesystem,
        path=path,
        name=path.rsplit("/", 1)[-1],
        run_files=(*run_parts, *(file for file in run_files if not is_part(file))),
        step_files={k: tuple(v) for k, v in sorted(step_files.items())},
        step_parts=tuple(step_parts),
    )


def is_part(file: str) -> bool:
    """Whether a file's name is that of a part with rows of many runs.

    >>> is_part("steps/part-00112233aabbccdd.parquet"), is_part("steps/aa/part-00000000.parquet")
    (True, False)
    """
    return _PART.fullmatch(file.rsplit("/", 1)[-1]) is not None


def list_parts(filesystem: fs.FileSystem, folder: str) -> list[str]:
    """List a table's parts with rows of many runs: those in their place, then those on their way.

    Looks twice: a list that is made while a part gets its name may have neither of its names.
    """
    found: dict[str, str] = {}  # by hash
    selector = fs.FileSelector(folder, allow_not_found=True)
    for _ in range(2):
        for info in filesystem.get_file_info(selector):
            match = _PART.fullmatch(info.base_name)
            if match and info.type == fs.FileType.File and (match[1] or match[2] not in found):
                found[match[1] or match[2]] = info.path
    return sorted(found.values(), key=lambda file: (file.endswith(".folding"), file))


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
