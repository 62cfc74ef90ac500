"""Finding CIFAR-10's binary files: in a folder that is named, or fetched once into a cache.

The archive is written under a temporary name, checked against its SHA-256, and only the files that
are wanted are taken out of it, by name, so that no path in it can lead elsewhere. The folder
appears in the cache by one rename: it is complete or not there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
import urllib.request
from pathlib import Path

from cflows_ray.workloads.base import DataUnavailable

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
FOLDER = "cifar-10-batches-bin"
ENVIRONMENT_VARIABLE = "CFLOWS_CIFAR10_DIR"
TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST_FILE = "test_batch.bin"
MEMBERS = (*TRAIN_FILES, TEST_FILE, "batches.meta.txt")
REMEDY = (
    "get the 'CIFAR-10 binary version' archive elsewhere, unpack it, and set CFLOWS_CIFAR10_DIR "
    f"(or the option data_dir) to its folder {FOLDER}"
)

_BLOCK = 1 << 20
_TIMEOUT_S = 30


def find_folder(data_dir: str) -> Path:
    """Return the folder with the binary files: `data_dir`, the environment's, or the cache.

    A folder that is named must hold at least one training file and the test file, or
    `DataUnavailable` says what is missing. Where none is named, the archive is downloaded once.
    """
    named = data_dir or os.environ.get(ENVIRONMENT_VARIABLE, "")
    if not named:
        return fetch_cifar10()
    source = "data_dir" if data_dir else ENVIRONMENT_VARIABLE
    folder = Path(named).expanduser()
    missing = [name for name in (TRAIN_FILES[0], TEST_FILE) if not (folder / name).is_file()]
    if any((folder / name).is_file() for name in TRAIN_FILES):
        missing = [name for name in missing if name == TEST_FILE]
    if missing:
        raise DataUnavailable(
            f"{source} = {named!r} has no {' and no '.join(missing)}: it must be the folder of "
            "CIFAR-10's binary version (cifar-10-batches-bin)"
        )
    return folder


def cache_folder() -> Path:
    """Return the cache: $XDG_CACHE_HOME/cflows_ray, by default ~/.cache/cflows_ray."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cflows_ray"


def fetch_cifar10(url: str = URL, sha256: str = SHA256) -> Path:
    """Return the folder of binary files in the cache; download and unpack it if it is not there.

    Raises `DataUnavailable`, saying what to do, if the download fails or is not the expected file.
    """
    cache = cache_folder()
    folder = cache / FOLDER
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetching-") as scratch:
        archive = Path(scratch) / "archive.tar.gz"
        try:
            digest = _download(url, archive)
        except OSError as error:
            raise DataUnavailable(f"could not download {url} ({error}); {REMEDY}") from None
        if digest != sha256:
            raise DataUnavailable(
                f"{url} has SHA-256 {digest}, expected {sha256}: the download is damaged or the "
                f"file has changed; try again, or {REMEDY}"
            )
        unpacked = Path(scratch) / FOLDER
        _unpack(archive, unpacked)
        try:
            unpacked.rename(folder)
        except OSError:
            # another process was first, which is as good
            if not folder.is_dir():
                raise
    return folder


def _download(url: str, target: Path) -> str:
    """Write a URL to a file, showing progress on standard error; return its SHA-256."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    digest = hashlib.sha256()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response, target.open("wb") as file:
        length = response.headers.get("Content-Length")
        total = int(length) if length else None
        with bar:
            task = bar.add_task("downloading CIFAR-10", total=total)
            while block := response.read(_BLOCK):
                file.write(block)
                digest.update(block)
                bar.advance(task, len(block))
    return digest.hexdigest()


def _unpack(archive: Path, folder: Path) -> None:
    """Copy the wanted regular files out of an archive; everything else in it is ignored."""
    folder.mkdir()
    wanted = {f"{FOLDER}/{name}": name for name in MEMBERS}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            name = wanted.pop(member.name, None)
            source = tar.extractfile(member) if name and member.isreg() else None
            if name and source:
                with source, (folder / name).open("wb") as file:
                    shutil.copyfileobj(source, file)
    missing = [name for name in wanted.values() if name.endswith(".bin")]
    if missing:
        raise DataUnavailable(f"the CIFAR-10 archive lacks {', '.join(missing)}; {REMEDY}")
