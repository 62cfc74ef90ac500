"""The options of every data set and network: their names, defaults and allowed values.

Everything here is plain Python, so that a configuration can be checked on a driver that loads
neither JAX nor any data. A workload's options are one flat mapping: those of its data set, those
of its network, and `CommonOptions`, with no name used twice.

Every class raises `ValueError` naming the field, the value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


def _require(ok: bool, field: str, allowed: str, value: object) -> None:
    """Raise `ValueError` that names a field unless `ok`."""
    if not ok:
        raise ValueError(f"{field} must be {allowed}, got {value!r}")


def _at_least(options: object, minimum: int, *names: str) -> None:
    """Check that the named fields are integers (not booleans) of at least `minimum`."""
    for name in names:
        value = getattr(options, name)
        ok = isinstance(value, int) and not isinstance(value, bool) and value >= minimum
        _require(ok, name, f"an integer >= {minimum}", value)


def _one_of(options: object, name: str, allowed: tuple[str, ...]) -> None:
    """Check that a field is one of the allowed words."""
    value = getattr(options, name)
    _require(value in allowed, name, f"one of {list(allowed)}", value)


def _is_bool(options: object, *names: str) -> None:
    """Check that the named fields are booleans."""
    for name in names:
        value = getattr(options, name)
        _require(isinstance(value, bool), name, "true or false", value)


def _is_number(options: object, *names: str) -> None:
    """Check that the named fields are finite numbers."""
    for name in names:
        value = getattr(options, name)
        ok = isinstance(value, int | float) and not isinstance(value, bool)
        ok = ok and abs(value) < float("inf")
        _require(ok, name, "a finite number", value)


@dataclass(frozen=True)
class CommonOptions:
    """Options of every workload that trains a network.

    Attributes:
        ghost_batch: examples in a slice of the full batch; derivatives accumulate over slices.
            0 takes the whole batch at once.
        num_probe: test inputs (training inputs where there is no test set) on which the outputs
            of two processes are compared.
    """

    ghost_batch: int = 0
    num_probe: int = 64

    def __post_init__(self) -> None:
        _at_least(self, 0, "ghost_batch")
        _at_least(self, 1, "num_probe")


@dataclass(frozen=True)
class SaddleOptions:
    """L(x, y) = ½ y x² - c y, started at (x0, y0) plus a small offset drawn from the seed."""

    c: float = 0.05
    x0: float = 0.1
    y0: float = 9.5

    def __post_init__(self) -> None:
        _is_number(self, "c", "x0", "y0")
        _require(self.c >= 0, "c", ">= 0", self.c)
        _require(self.y0 > 0, "y0", "> 0", self.y0)


@dataclass(frozen=True)
class DigitsOptions:
    """Handwritten digits: how many of the 1,797 images to train on (the rest test)."""

    num_examples: int = 1000

    def __post_init__(self) -> None:
        _at_least(self, 10, "num_examples")
        _require(self.num_examples <= 1697, "num_examples", "<= 1697", self.num_examples)


@dataclass(frozen=True)
class MLPOptions:
    """Sizes of the multilayer perceptron: `depth` hidden layers of `width`."""

    width: int = 256
    depth: int = 2
    activation: str = "gelu"
    zero_head: bool = False

    def __post_init__(self) -> None:
        _at_least(self, 1, "width", "depth")
        _one_of(self, "activation", ("gelu", "tanh"))
        _is_bool(self, "zero_head")


def resolve(classes: tuple[type, ...], options: Mapping[str, Any], workload: str) -> list[Any]:
    """Split a flat mapping of options over option classes; instances in the same order.

    Lists become tuples, so that options read from JSON are as good as those written in Python.

    Raises `ValueError` for an option that no class has, and for values that a class rejects.

    Example:
        >>> resolve((MLPOptions, CommonOptions), {"width": 8}, "mlp")[0].width
        8
    """
    known = {f.name for cls in classes for f in fields(cls)}
    for name in options:
        if name not in known:
            raise ValueError(
                f"option {name!r} is unknown to workload {workload!r}; it takes {sorted(known)}"
            )
    result = []
    for cls in classes:
        names = {f.name for f in fields(cls)}
        values = {
            k: tuple(v) if isinstance(v, list) else v for k, v in options.items() if k in names
        }
        result.append(cls(**values))
    return result
