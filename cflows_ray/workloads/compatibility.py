"""Where a data set meets a network: the form in which the network takes it, and what is refused.

With NumPy only, so that a driver can look before anything is scheduled. Targets that had the wrong
shape would broadcast against the outputs, and a loss over all pairs of examples looks like a loss.

| network | inputs | outputs | integer targets | float targets |
| --- | --- | --- | --- | --- |
| of numbers | (n, ...) float32 | (n, c) | classes (n,) | (n, c) |
| of tokens | (n, t) int32 | (n, s, c) | tokens (n, s) | none |

For a network of numbers, integer classes may also come as (n, 1) or as one-hot rows (n, c).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from cflows_ray.checks import MOST_INT32, ConfigError
from cflows_ray.workloads.base import DataSet, NetworkKind

Arrays = dict[str, np.ndarray]


def arrays_of(data: DataSet) -> Arrays:
    """Return the arrays of a data set that it has."""
    found = {"x": data.x, "y": data.y, "x_test": data.x_test, "y_test": data.y_test}
    return {name: array for name, array in found.items() if array is not None}


def with_arrays(data: DataSet, arrays: Arrays) -> DataSet:
    """Return the data set with other arrays."""
    x_test, y_test = arrays.get("x_test"), arrays.get("y_test")
    return replace(data, x=arrays["x"], y=arrays["y"], x_test=x_test, y_test=y_test)


def is_integer(array: np.ndarray) -> bool:
    """Tell integers from floats."""
    return array.dtype.kind in "iu"


def expect(ok: bool, name: str, allowed: str, got: object) -> None:
    """Raise `ConfigError` unless `ok`; `got` is put in words, not as a Python value."""
    if not ok:
        raise ConfigError(f"{name} must be {allowed}, got {got}")


def to_float32(name: str, array: np.ndarray) -> np.ndarray:
    """Return an array as float32; raises `ConfigError` where numbers are not finite in it."""
    with np.errstate(over="ignore"):
        result = array.astype(np.float32, copy=False)
    if not np.all(np.isfinite(result)):
        worst = array[~np.isfinite(result)].flat[0]
        expect(False, name, "finite in float32", float(worst))
    return result


def to_int32(name: str, array: np.ndarray, meaning: str) -> np.ndarray:
    """Return integers >= 0 as int32; raises `ConfigError` for those outside, `meaning` saying why.

    Example:
        >>> to_int32("x", np.array([2**32 + 1]), "it holds tokens")
        Traceback (most recent call last):
        cflows_ray.checks.ConfigError: x must be <= 2147483647 where it holds tokens, got 4294967297
    """
    if array.size:
        low, high = int(array.min()), int(array.max())
        expect(low >= 0, name, f">= 0 where {meaning}", low)
        expect(high <= MOST_INT32, name, f"<= {MOST_INT32} where {meaning}", high)
    return array.astype(np.int32, copy=False)


def check_no_gap(labels: Iterable[np.ndarray]) -> None:
    """Check that classes, test set included, are 0 .. c - 1 and all occur.

    A class that never occurs would be an output that is trained towards never being chosen: it
    changes the loss and its curvature.
    """
    present = np.unique(np.concatenate([np.ravel(array) for array in labels]))
    got = (
        f"{len(present)} different ones up to {present[-1]}: number them anew by "
        "numpy.unique(y, return_inverse=True)[1], or give one-hot rows of c integers"
    )
    expect(len(present) == present[-1] + 1, "y", "classes 0 .. c - 1, all in use", got)


def check_belonging(arrays: Arrays) -> None:
    """Check that inputs and targets are of one length, and test arrays like those of training.

    Raises `ConfigError` naming the arrays and what they are.
    """
    for suffix in ("", "_test"):
        if f"x{suffix}" in arrays and f"y{suffix}" in arrays:
            x, y = arrays[f"x{suffix}"], arrays[f"y{suffix}"]
            got = f"{x.shape} and {y.shape}"
            expect(len(x) == len(y), f"x{suffix} and y{suffix}", "of one length", got)
    for name, array in arrays.items():
        train = arrays[name[0]]
        same = array.shape[1:] == train.shape[1:] and is_integer(array) == is_integer(train)
        got = f"{array.dtype} {array.shape} and {train.dtype} {train.shape}"
        expect(same, name, f"like {name[0]}", got)


def as_taken_by(kind: NetworkKind, data: DataSet) -> DataSet:
    """Return the data in the form in which a network takes them.

    Raises `ConfigError` for data that have none.
    """
    arrays = arrays_of(data)
    if kind.tokens:
        for name, array in arrays.items():
            if is_integer(array):
                arrays[name] = to_int32(name, array, "it holds tokens")
        return with_arrays(data, arrays)
    for name in ("x", "x_test"):
        if name in arrays:
            arrays[name] = to_float32(name, arrays[name])
    num_outputs = data.num_outputs
    if is_integer(data.y):
        targets = {k: to_int32(k, v, "it is integer") for k, v in arrays.items() if k[0] == "y"}
        targets, num_outputs = _as_classes(targets, num_outputs)
        arrays |= targets
    else:
        expect(data.y.ndim == 2, "y", "(n,) or (n, c) where it is float", data.y.shape)
    return replace(with_arrays(data, arrays), num_outputs=num_outputs, vocab_size=None)


def _as_classes(targets: Arrays, num_outputs: int) -> tuple[Arrays, int]:
    """Return integer targets as classes (n,), or as one-hot rows of floats (n, c), and c."""
    y = targets["y"]
    if y.ndim == 1:
        return targets, num_outputs
    if y.ndim == 2 and y.shape[1] == 1:
        classes = {name: array[:, 0] for name, array in targets.items()}
        check_no_gap(classes.values())
        return classes, num_outputs
    one_hot = y.ndim == 2 and all(
        np.all((rows == 0) | (rows == 1)) and np.all(rows.sum(axis=1) == 1)
        for rows in targets.values()
    )
    allowed = "classes (n,) or one-hot rows (n, c) where it is integer"
    expect(one_hot, "y", allowed, f"{y.dtype} {y.shape}")
    return {name: rows.astype(np.float32) for name, rows in targets.items()}, y.shape[1]


def check_meeting(criterion: str, workload: str, kind: NetworkKind, data: DataSet) -> None:
    """Check that targets are what the network's outputs can be compared with.

    Args:
        criterion: "mse" or "cross_entropy".
        workload: name of the workload, for messages.
        kind: the network.
        data: as `as_taken_by` returned it.

    Raises `ConfigError` naming the array, what is allowed and what it is.
    """
    arrays = arrays_of(data)
    check_belonging(arrays)
    for name in ("y", "y_test"):
        if name in arrays:
            _check_targets(name, arrays[name], data.num_outputs)
    if criterion == "cross_entropy":
        _check_classes(workload, data)
    if kind.tokens and data.vocab_size is not None:
        highest = max(int(arrays[name].max()) for name in ("x", "x_test") if name in arrays)
        expect(highest < data.vocab_size, "x", f"tokens below {data.vocab_size}", highest)


def _check_targets(name: str, y: np.ndarray, num_outputs: int) -> None:
    """Check that targets are classes, or vectors, of so many outputs."""
    if not is_integer(y):
        allowed = f"of num_outputs = {num_outputs} numbers an example"
        expect(y.shape[-1] == num_outputs, name, allowed, y.shape)
    elif y.size:
        below = f"classes below num_outputs = {num_outputs}"
        expect(int(y.max()) < num_outputs, name, below, int(y.max()))


def is_classification(y: np.ndarray) -> bool:
    """Tell targets that name classes (indices, ±1 or one-hot vectors) from other targets."""
    if is_integer(y):
        return True
    if y.shape[-1] == 1:
        return bool(np.all(np.abs(y) == 1))
    return bool(np.all((y == 0) | (y == 1)) and np.all(y.sum(axis=-1) == 1))


def _check_classes(workload: str, data: DataSet) -> None:
    """Check that targets are classes, of which there is more than one."""
    begin = f"criterion 'cross_entropy' of workload {workload!r} needs"
    if not is_classification(data.y):
        raise ConfigError(
            f"{begin} targets that are class indices, one-hot vectors, or ±1 for a single output"
        )
    if is_integer(data.y) and data.num_outputs == 1:
        raise ConfigError(f"{begin} at least two classes, y has one: the loss would be 0")
