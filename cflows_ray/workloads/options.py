"""Options of workloads: checks of single fields, and splitting one mapping over several classes.

A workload's options are one flat mapping: those of its data set, those of its network, and
`CommonOptions`, with no name used twice. Each class of options is a frozen dataclass that stands
beside the code that reads it and checks itself; it loads no JAX, so that a driver can check a
configuration.

Every class raises `ConfigError`, a `ValueError`, naming the field, the value and what is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from cflows_ray.checks import ConfigError, boolean, integer, number

ACTIVATIONS = ("gelu", "tanh")


def check_at_least(options: object, minimum: int, *names: str) -> None:
    """Check that the named fields are integers of at least `minimum`."""
    for name in names:
        integer(name, getattr(options, name), minimum)


def check_booleans(options: object, *names: str) -> None:
    """Check that the named fields are booleans."""
    for name in names:
        boolean(name, getattr(options, name))


def check_numbers(options: object, *names: str) -> None:
    """Check that the named fields are finite numbers."""
    for name in names:
        number(name, getattr(options, name), "a finite number", -math.inf)


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
        check_at_least(self, 0, "ghost_batch")
        check_at_least(self, 1, "num_probe")


def resolve(classes: Sequence[type], options: Mapping[str, Any], workload: str) -> list[Any]:
    """Split a flat mapping of options over option classes; instances in the same order.

    Lists become tuples, so that options read from JSON are as good as those written in Python.

    Raises `ValueError` for an option that no class has, and for values that a class rejects.

    Example:
        >>> resolve((CommonOptions,), {"num_probe": 8}, "mlp")[0].num_probe
        8
    """
    known = {f.name for cls in classes for f in fields(cls)}
    for name in options:
        if name not in known:
            raise ConfigError(
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
