"""Fields that say what they are: one place for the name and bounds of a hyperparameter or setting.

A frozen dataclass declares a field with `declare`; from it follow the check and its message, the
option of the command line, the column of the `runs` table with its unit and meaning, and how the
analysis groups and labels. Imports neither JAX nor Ray.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from dataclasses import MISSING, dataclass
from typing import Any

from cflows_ray.checks import boolean, decay_rate, integer, positive


class _Nothing(enum.Enum):
    """A value that is itself again on another machine, where the classes of a study arrive."""

    NOTHING = enum.auto()


NOTHING: Any = _Nothing.NOTHING
"""No value of this kind."""

KINDS = ("number", "integer", "text", "boolean")


@dataclass(frozen=True)
class Declared:
    """What a field is.

    Attributes:
        check: `check(name, value)` returns the value as it is kept, or raises `ConfigError`.
        kind: one of `KINDS`: the type of its column and of its option.
        meaning: one line for people.
        unit: of the number; empty for none.
        symbol: how figures write it; empty for its name.
        traced: whether programs take it as an argument, so that a new value compiles nothing.
        off: the value that leaves a part out (a momentum of 0): that value is not traced.
        absent: the value of runs that were made before the field existed; `NOTHING` where there are
            none. At this value the field does not enter the run id.
    """

    check: Callable[[str, Any], Any]
    kind: str
    meaning: str
    unit: str = ""
    symbol: str = ""
    traced: bool = False
    off: Any = NOTHING
    absent: Any = NOTHING


def declare(
    default: Any = MISSING,
    *,
    check: Callable[[str, Any], Any],
    kind: str,
    meaning: str,
    unit: str = "",
    symbol: str = "",
    traced: bool = False,
    off: Any = NOTHING,
    absent: Any = NOTHING,
) -> Any:
    """Return a dataclass field that is declared; see `Declared`.

    Example:
        >>> @dataclass(frozen=True)
        ... class Toy:
        ...     strength: float = declare(1.0, check=positive, kind="number", meaning="of the toy")
        >>> [(name, d.meaning) for name, d in declared(Toy).items()]
        [('strength', 'of the toy')]
    """
    info = Declared(check, kind, meaning, unit, symbol, traced, off, absent)
    return dataclasses.field(default=default, metadata={"declared": info})


def declared(owner: Any) -> dict[str, Declared]:
    """Return the declared fields of a dataclass (or an instance), by name, in their order."""
    return {
        f.name: f.metadata["declared"]
        for f in dataclasses.fields(owner)
        if "declared" in f.metadata
    }


def default_of(owner: Any, name: str) -> Any:
    """Return a field's default value, or `MISSING`."""
    return next(f.default for f in dataclasses.fields(owner) if f.name == name)


def check_declared(instance: Any) -> None:
    """Check every declared field of a frozen dataclass and keep what the checks return.

    Raises `ConfigError` naming the field, the value and what is allowed.
    """
    for name, info in declared(instance).items():
        object.__setattr__(instance, name, info.check(name, getattr(instance, name)))


def learning_rate() -> Any:
    """Declare the learning rate η, which every rule has."""
    return declare(
        check=positive,
        kind="number",
        meaning="learning rate (peak, if scheduled)",
        symbol="η",
        traced=True,
    )


def number(default: Any = MISSING, *, meaning: str, check: Any = positive, **more: Any) -> Any:
    """Declare a number that programs take as an argument, > 0 unless another check is given."""
    return declare(default, check=check, kind="number", meaning=meaning, traced=True, **more)


def average_decay(default: Any = MISSING, *, meaning: str, **more: Any) -> Any:
    """Declare the decay rate of a moving average, between 0 and 1."""
    return number(default, check=decay_rate, meaning=meaning, **more)


def momentum(check: Any) -> Any:
    """Declare the decay β of a gradient filter that may be left out."""
    return number(
        0.0,
        check=check,
        meaning="momentum: decay of the gradient's filter, 0 for none",
        symbol="β",
        off=0.0,
        absent=0.0,
    )


def weight_decay(check: Any, default: float = 0.0, **more: Any) -> Any:
    """Declare the strength ω of decoupled weight decay, w' = ... - η ω w."""
    return number(
        default,
        check=check,
        meaning="decoupled weight decay, multiplied by the learning rate",
        symbol="ω",
        off=0.0,
        **more,
    )


def flag(default: bool, *, meaning: str, **more: Any) -> Any:
    """Declare a choice between two programs."""
    return declare(default, check=boolean, kind="boolean", meaning=meaning, **more)


def at_least(minimum: int) -> Callable[[str, Any], int]:
    """Return the check of an integer with a lower bound."""
    return lambda name, value: integer(name, value, minimum)
