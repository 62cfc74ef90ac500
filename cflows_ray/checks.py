"""Checks of single values; every error names the field, what is allowed and the value."""

from __future__ import annotations

import math
import numbers
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# Counts are int32 in compiled programs; seeds are int64 in the tables.
MOST_INT32, MOST_INT64 = 2**31 - 1, 2**63 - 1


class ConfigError(ValueError):
    """A mistake in a configuration, in one line."""


def require(ok: bool, name: str, allowed: str, value: Any) -> None:
    """Raise `ConfigError` naming a field unless `ok`."""
    if not ok:
        raise ConfigError(f"{name} must be {allowed}, got {value!r}")


def plain(value: Any) -> Any:
    """Return the Python number that a NumPy or JAX scalar or array () holds; else the value.

    Example:
        >>> import numpy as np
        >>> plain(np.array(3)), plain("3")
        (3, '3')
    """
    is_scalar = getattr(value, "shape", None) == () and hasattr(value, "item")
    return value.item() if is_scalar else value


def integer(name: str, value: Any, minimum: int, maximum: int = MOST_INT32) -> int:
    """Return `value` as an int from `minimum` to `maximum`."""
    value = plain(value)
    ok = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    require(ok and int(value) >= minimum, name, f"an integer >= {minimum}", value)
    require(int(value) <= maximum, name, f"<= {maximum}", value)
    return int(value)


def seed_number(name: str, value: Any) -> int:
    """Return `value` as a seed."""
    return integer(name, value, 0, MOST_INT64)


def number(name: str, value: Any, allowed: str, low: float, high: float = math.inf) -> float:
    """Return `value` as a finite float with low <= value < high; `allowed` says this in words."""
    value = plain(value)
    ok = isinstance(value, numbers.Real) and not isinstance(value, bool)
    require(ok and math.isfinite(value) and low <= value < high, name, allowed, value)
    return float(value)


def positive(name: str, value: Any) -> float:
    """Return `value` as a finite float > 0."""
    return number(name, value, "> 0", low=math.ulp(0.0))


def decay_rate(name: str, value: Any) -> float:
    """Return `value` as the decay rate of a moving average."""
    return number(name, value, "> 0 and < 1", low=math.ulp(0.0), high=1.0)


def boolean(name: str, value: Any) -> bool:
    """Return `value`, a boolean."""
    value = plain(value)
    require(isinstance(value, bool), name, "True or False", value)
    return bool(value)


def one_of(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Check that `value` is one of the allowed words."""
    allowed = list(allowed)
    require(value in allowed, name, f"one of {allowed}", value)


def sequence(name: str, value: Any) -> tuple[Any, ...]:
    """Return a sequence as a non-empty tuple without repetitions; a single value is refused."""
    value = plain(value)
    ok = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    require(ok, name, "a sequence", value)
    result: tuple[Any, ...] = tuple(value)
    require(len(result) > 0, name, "a non-empty sequence", value)
    repeated = _repeated(result)
    require(not repeated, name, "free of repetitions", ", ".join(repeated))
    return result


def _repeated(values: tuple[Any, ...]) -> list[str]:
    """Return what occurs more than once, in words."""
    times: Callable[[Any], int]
    try:
        times = Counter(values).__getitem__  # of a hundred thousand seeds, say
    except TypeError:  # lists, which have no hash
        times = values.count
    return sorted({str(v) for v in values if times(v) > 1})
