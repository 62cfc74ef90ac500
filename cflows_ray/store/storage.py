"""Files on any filesystem that pyarrow knows, written whole or not at all.

A write goes to a temporary name that starts with "_" (readers of Parquet ignore it) and is then
renamed, so that a process killed at any moment leaves either the old file or the new one. All
paths are relative to the storage's root. Errors are `StorageError`, in one line.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from cflows_ray.checks import ConfigError

# Errors that no retry mends: the whole sweep stops at once and can be continued once mended.
LASTING_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)

# Called with (event, path) around every change on storage. Only fault-injection tests set it.
on_event: Callable[[str, str], None] | None = None


class StorageError(OSError):
    """Storage could not be read or written. `lasting` says that trying again won't help."""

    def __init__(self, message: str, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep both arguments when the error crosses processes."""
        return (StorageError, (str(self), self.lasting))


def _event(event: str, path: str) -> None:
    """Tell the fault injector, if there is one, what is about to happen or has happened."""
    if on_event is not None:
        on_event(event, path)


def is_uri(location: str) -> bool:
    """Whether a location is a URI rather than a local path."""
    return "://" in location


class Storage:
    """A folder on a local disk or an object store.

    Attributes:
        location: the folder or URI as a person would write it, made absolute if local.
        base: the same without `folder`.

    Raises `ConfigError` if the location is not one that pyarrow understands. Nothing is created
    before the first write.

    Example:
        >>> import tempfile
        >>> storage = Storage(tempfile.mkdtemp(), "quickstart")
        >>> storage.write("notes/a.txt", b"hello")
        >>> storage.names("notes"), storage.read("notes/a.txt")
        (['a.txt'], b'hello')
    """

    def __init__(self, location: str, folder: str = "") -> None:
        if not is_uri(location):
            location = os.path.abspath(os.path.expanduser(location))
        try:
            self._fs, root = pafs.FileSystem.from_uri(location)
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"storage must be a folder or URI, got {location!r}: {reason}"
            ) from None
        self._root = posixpath.join(root, folder) if folder else root
        self.is_local = isinstance(self._fs, pafs.LocalFileSystem)
        self.base = location
        base, _, query = location.partition("?")
        self.location = posixpath.join(base, folder).rstrip("/") + (f"?{query}" if query else "")

    def _path(self, path: str) -> str:
        return posixpath.join(self._root, path) if path else self._root

    @contextlib.contextmanager
    def _errors(self, doing: str, path: str) -> Iterator[None]:
        """Turn errors of the filesystem into `StorageError`s that say what was being done."""
        try:
            yield
        except StorageError:
            raise
        except (OSError, pa.ArrowException) as error:
            number = getattr(error, "errno", None)
            lasting = number in LASTING_ERRNOS or "ACCESS_DENIED" in str(error)
            reason = os.strerror(number) if number else " ".join(str(error).split())
            where = f"{self.location.partition('?')[0]}/{path}"
            raise StorageError(f"cannot {doing} {where}: {reason}", lasting) from error

    def read(self, path: str) -> bytes:
        """Return a file's bytes; raises `FileNotFoundError` if there is none."""
        try:
            with (
                self._errors("read", path),
                self._fs.open_input_stream(self._path(path)) as stream,
            ):
                return bytes(stream.read())
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise FileNotFoundError(f"{self.location}/{path}") from None
            raise

    def write(self, path: str, data: bytes) -> None:
        """Write a file so that it appears at once, whole, under its name."""
        folder, name = posixpath.split(path)
        temporary = posixpath.join(folder, f"_{name}.{uuid.uuid4().hex[:8]}")
        with self._errors("write", path):
            _event("before write", path)
            if self.is_local:
                self._fs.create_dir(self._path(folder), recursive=True)
            try:
                with self._fs.open_output_stream(self._path(temporary)) as stream:
                    stream.write(data[: len(data) // 2])
                    _event("half written", path)
                    stream.write(data[len(data) // 2 :])
                if self.is_local:
                    _flush_to_disk(self._path(temporary))
                _event("before rename", path)
                self._fs.move(self._path(temporary), self._path(path))
            except (OSError, pa.ArrowException):
                with contextlib.suppress(OSError, pa.ArrowException):
                    self._fs.delete_file(self._path(temporary))
                raise
        _event("written", path)

    def move(self, source: str, target: str) -> None:
        """Rename a file; on an object store, copy and then delete."""
        with self._errors("rename", source):
            _event("before move", source)
            self._fs.move(self._path(source), self._path(target))
        _event("moved", target)

    def delete(self, path: str) -> None:
        """Delete a file, if it is there."""
        with self._errors("delete", path):
            _event("before delete", path)
            with contextlib.suppress(FileNotFoundError):
                if self.exists(path):
                    self._fs.delete_file(self._path(path))
        _event("deleted", path)

    def delete_folder(self, path: str) -> None:
        """Delete a folder with all that is in it, if it is there."""
        with self._errors("delete", path):
            _event("before delete", path)
            with contextlib.suppress(FileNotFoundError):
                info = self._fs.get_file_info(self._path(path))
                if info.type == pafs.FileType.Directory:
                    self._fs.delete_dir(self._path(path))
        _event("deleted", path)

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder of that name."""
        with self._errors("look at", path):
            return bool(self._fs.get_file_info(self._path(path)).type != pafs.FileType.NotFound)

    def names(self, folder: str, recursive: bool = False) -> list[str]:
        """Sorted paths of all files below a folder, relative to it; empty if there is none."""
        return sorted(self.sizes(folder, recursive))

    def sizes(self, folder: str, recursive: bool = False) -> dict[str, int]:
        """Sizes in bytes of all files below a folder, by path relative to it."""
        with self._errors("list", folder):
            selector = pafs.FileSelector(
                self._path(folder), allow_not_found=True, recursive=recursive
            )
            start = len(self._path(folder).rstrip("/")) + 1
            infos = self._fs.get_file_info(selector)
            return {i.path[start:]: i.size for i in infos if i.type == pafs.FileType.File}

    @contextlib.contextmanager
    def opened(self, path: str) -> Iterator[pa.NativeFile]:
        """Open a file to read parts of it; raises `FileNotFoundError` if there is none."""
        try:
            with self._errors("read", path), self._fs.open_input_file(self._path(path)) as file:
                yield file
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise FileNotFoundError(f"{self.location}/{path}") from None
            raise


def _flush_to_disk(path: str) -> None:
    """Wait until a file's bytes are on the disk, so that a rename never outlives its contents."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
