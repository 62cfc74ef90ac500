"""Your own data, from an `.npz` file with arrays x, y and, if wanted, x_test, y_test.

Inputs x (n, ...) are floats (stored as float32, not rescaled) or, for sequence networks, integer
tokens (n, t). Targets y are integer classes (n,), integer tokens (n, s) for the last s positions,
or floats (n,) or (n, c).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from cflows_ray.checks import require
from cflows_ray.workloads.base import DataSet, DataSource, DataUnavailable


@dataclass(frozen=True)
class NpzOptions:
    """Your own data: the path of an `.npz` file."""

    path: str = ""

    def __post_init__(self) -> None:
        ok = isinstance(self.path, str) and self.path.endswith(".npz")
        require(ok, "path", "the path of an .npz file", self.path)


def _read(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file; nothing is unpickled."""
    if not path.is_file():
        raise FileNotFoundError(f"path = {str(path)!r} does not exist")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("x", "y", "x_test", "y_test") if name in file}
    except (ValueError, BadZipFile, OSError) as error:
        raise ValueError(f"path = {str(path)!r} is not a file of plain arrays: {error}") from error
    for name in ("x", "y"):
        if name not in arrays:
            raise ValueError(f"path = {str(path)!r} has no array {name!r}")
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise ValueError(f"path = {str(path)!r} has only one of 'x_test' and 'y_test'")
    return arrays


def _convert(name: str, array: np.ndarray) -> np.ndarray:
    """Return an array as float32 or int32; targets that are floats get a last axis."""
    if np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float32)
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{name} must be finite")
        return array[:, None] if name.startswith("y") and array.ndim == 1 else array
    if np.issubdtype(array.dtype, np.integer) or array.dtype == np.bool_:
        image = name.startswith("x") and array.ndim > 2
        if not image and array.size and array.min() < 0:
            raise ValueError(f"{name} must be >= 0 where it is integer, got {array.min()}")
        return array.astype(np.float32 if image else np.int32)
    raise ValueError(f"{name} must be of numbers, got {array.dtype}")


def _check_shapes(arrays: dict[str, np.ndarray]) -> None:
    """Check that arrays belong together."""
    for suffix in ("", "_test"):
        if f"x{suffix}" not in arrays:
            continue
        x, y = arrays[f"x{suffix}"], arrays[f"y{suffix}"]
        if x.ndim < 2 or y.ndim < 1 or len(x) != len(y) or len(x) == 0:
            raise ValueError(
                f"x{suffix} must be (n, ...) and y{suffix} (n, ...) with n >= 1, "
                f"got {x.shape} and {y.shape}"
            )
        for name in ("x", "y"):
            here, train = arrays[f"{name}{suffix}"], arrays[name]
            if here.shape[1:] != train.shape[1:] or here.dtype != train.dtype:
                raise ValueError(
                    f"{name}{suffix} must be like {name}, got {here.dtype} {here.shape} "
                    f"and {train.dtype} {train.shape}"
                )


def _largest(arrays: dict[str, np.ndarray], name: str) -> int:
    """Return the largest value of an array and its test twin."""
    return max(int(arrays[key].max()) for key in (name, f"{name}_test") if key in arrays)


def load(options: NpzOptions) -> DataSet:
    """Load the file.

    Raises `FileNotFoundError` or `ValueError` saying which array is missing or wrong.
    """
    arrays = {k: _convert(k, v) for k, v in _read(file_of(options)).items()}
    _check_shapes(arrays)
    y = arrays["y"]
    tokens = np.issubdtype(arrays["x"].dtype, np.integer)
    integer = np.issubdtype(y.dtype, np.integer)
    return DataSet(
        x=arrays["x"],
        y=y,
        x_test=arrays.get("x_test"),
        y_test=arrays.get("y_test"),
        num_outputs=_largest(arrays, "y") + 1 if integer else y.shape[-1],
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


NPZ = DataSource(
    "npz", NpzOptions, load, fetch=fetch, files=lambda o: [file_of(o)], paths=("path",)
)
