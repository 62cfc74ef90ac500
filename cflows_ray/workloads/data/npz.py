"""Your own data, from an `.npz` file with arrays x, y and, if wanted, x_test, y_test.

Inputs x (n, ...) are numbers (stored as float32, not rescaled) or, for sequence networks, integer
tokens (n, t). Targets y are

- integer classes (n,) or (n, 1), 0 .. c - 1 without a gap, or one-hot rows (n, c);
- -1 and 1, a binary task with one output;
- integer tokens (n, s) for the last s positions, for sequence networks;
- floats (n,) or (n, c), for regression.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cflows_ray.checks import require
from cflows_ray.workloads.base import DataSet, DataSource, DataUnavailable
from cflows_ray.workloads.compatibility import (
    Arrays,
    check_belonging,
    check_no_gap,
    expect,
    is_integer,
    to_float32,
    to_int32,
)

_NAMES = ("x", "y", "x_test", "y_test")
_DAMAGED = (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class NpzOptions:
    """Your own data: the path of an `.npz` file."""

    path: str = ""

    def __post_init__(self) -> None:
        ok = isinstance(self.path, str) and self.path.endswith(".npz")
        require(ok, "path", "the path of an .npz file", self.path)


def _read(path: Path) -> Arrays:
    """Read the arrays of a file; nothing is unpickled."""
    if not path.is_file():
        raise FileNotFoundError(f"path = {str(path)!r} does not exist")
    wrong = f"path = {str(path)!r} is not a file of plain arrays"
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{wrong}: it is not, or not all of, what numpy.savez writes")
    arrays: Arrays = {}
    with zipfile.ZipFile(path) as archive:
        there = {Path(member).stem for member in archive.namelist()}
    for name in _NAMES:
        if name not in there:
            continue
        try:
            with np.load(path, allow_pickle=False) as file:
                found = file[name]
        except _DAMAGED as error:
            objects = "allow_pickle" in str(error)
            why = "holds Python objects, not numbers" if objects else f"can't be read ({error})"
            raise ValueError(f"{wrong}: {name!r} {why}") from None
        if not isinstance(found, np.ndarray):  # NumPy hands out the bytes of other members
            raise ValueError(f"{wrong}: {name!r} is no array")
        arrays[name] = found
    for name in ("x", "y"):
        if name not in arrays:
            raise ValueError(f"path = {str(path)!r} has no array {name!r}")
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise ValueError(f"path = {str(path)!r} has only one of 'x_test' and 'y_test'")
    return arrays


def _numbers(name: str, array: np.ndarray) -> np.ndarray:
    """Return an array of float32 or of integers; `ConfigError` for other kinds."""
    if np.issubdtype(array.dtype, np.floating):
        return to_float32(name, array)
    if array.dtype == np.bool_:
        return array.astype(np.int32)
    expect(is_integer(array), name, "of numbers", array.dtype)
    return array


def _check_form(arrays: Arrays) -> None:
    """Check that every array holds examples, and these numbers."""
    for name, array in arrays.items():
        axes = 2 if name[0] == "x" else 1
        ok = array.ndim >= axes and len(array) > 0
        expect(ok, name, "(n, ...) with n >= 1", array.shape)
        expect(array.size > 0, name, "of at least one number an example", array.shape)


def _targets(targets: Arrays) -> Arrays:
    """Return integer targets as int32 classes or tokens, or ±1 as float32; floats with an axis c.

    Raises `ConfigError` for classes that are negative, too large or have a gap.
    """
    y = targets["y"]
    if not is_integer(y):
        return {k: v[:, None] if v.ndim == 1 else v for k, v in targets.items()}
    column = y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1)
    signs = all(np.isin(v, (-1, 1)).all() for v in targets.values())
    if column and signs and any(v.min() < 0 for v in targets.values()):
        return {k: v.reshape(-1, 1).astype(np.float32) for k, v in targets.items()}
    for name, array in targets.items():
        low = int(array.min())
        expect(low >= 0, name, ">= 0, or -1 and 1, where it is integer", low)
    classes = {k: to_int32(k, v, "it is integer") for k, v in targets.items()}
    if y.ndim == 1:
        check_no_gap(classes.values())
    return classes


def _largest(arrays: Arrays, name: str) -> int:
    """Return the largest value of an array and its test twin."""
    return max(int(arrays[key].max()) for key in (name, f"{name}_test") if key in arrays)


def load(options: NpzOptions) -> DataSet:
    """Load the file.

    Raises `FileNotFoundError` or `ValueError` saying which array is missing or wrong.
    """
    arrays = {k: _numbers(k, v) for k, v in _read(file_of(options)).items()}
    _check_form(arrays)
    check_belonging(arrays)
    arrays |= _targets({k: v for k, v in arrays.items() if k[0] == "y"})
    x, y = arrays["x"], arrays["y"]
    tokens = is_integer(x) and x.ndim == 2
    return DataSet(
        x=x,
        y=y,
        x_test=arrays.get("x_test"),
        y_test=arrays.get("y_test"),
        num_outputs=_largest(arrays, "y") + 1 if is_integer(y) else y.shape[-1],
        vocab_size=_largest(arrays, "x") + 1 if tokens else None,
    )


def file_of(options: NpzOptions) -> Path:
    """Return the path of the file, the home directory spelt out."""
    return Path(options.path).expanduser()


def fetch(options: NpzOptions) -> None:
    """See that there is a file; raises `DataUnavailable`."""
    if not file_of(options).is_file():
        raise DataUnavailable(
            f"path must be that of an .npz file, there is none at {options.path!r}"
        )


def files(options: NpzOptions) -> list[Path]:
    """Return the file."""
    return [file_of(options)]


NPZ = DataSource("npz", NpzOptions, load, fetch=fetch, files=files, paths=("path",))
