"""Sampled hyperparameters: distributions, and points that fill their range evenly.

Points are a Sobol sequence (Sobol' 1967; directions of Joe and Kuo 2008, as in `scipy.stats.qmc`)
over all sampled hyperparameters of a grid together, shifted digit by digit by a seed. The first n
points of a longer sequence are the points of a shorter one, and the seed and the names decide them:
nothing else does, so that the same study is the same runs on every machine.
"""

from __future__ import annotations

import abc
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cflows_ray.checks import ConfigError, integer, number, positive, require, sequence

# Sobol numbers have so many binary digits, and a sequence 2^BITS points at most.
BITS = 30
# A value is rounded to so many digits: logarithms differ between machines in the sixteenth.
DIGITS = 8


class Distribution(abc.ABC):
    """Values of one hyperparameter, to be sampled.

    Attributes:
        n: number of points of the whole grid; None where another distribution of it, or the grid's
            `samples`, says so.
    """

    n: int | None

    @abc.abstractmethod
    def at(self, share: float) -> Any:
        """Return the value below which a share of the distribution lies, 0 < share < 1."""


@dataclass(frozen=True)
class Uniform(Distribution):
    """A number between two bounds, all equally likely.

    Raises `ConfigError` for bounds that are not numbers or not in order.

    Example:
        >>> Uniform(0.0, 1.0).at(0.25)
        0.25
    """

    low: float
    high: float
    n: int | None = None

    def __post_init__(self) -> None:
        low, high = (
            number(name, getattr(self, name), "a finite number", low=-math.inf)
            for name in ("low", "high")
        )
        _check_order(low, high)
        _check_number_of_points(self.n)

    def at(self, share: float) -> float:
        """Return the value below which a share of the distribution lies."""
        return _rounded(self.low + share * (self.high - self.low), self.low, self.high)


@dataclass(frozen=True)
class LogUniform(Distribution):
    """A number between two positive bounds, its logarithm uniform.

    Raises `ConfigError` for bounds that are not positive or not in order.

    Example:
        >>> LogUniform(1e-4, 1e-2).at(0.5)
        0.001
    """

    low: float
    high: float
    n: int | None = None

    def __post_init__(self) -> None:
        _check_order(positive("low", self.low), positive("high", self.high))
        _check_number_of_points(self.n)

    def at(self, share: float) -> float:
        """Return the value below which a share of the distribution lies."""
        low, high = math.log(self.low), math.log(self.high)
        return _rounded(math.exp(low + share * (high - low)), self.low, self.high)


@dataclass(frozen=True)
class Choice(Distribution):
    """One of several values, all equally likely.

    Raises `ConfigError` if there are none, or one twice.

    Example:
        >>> Choice((0.9, 0.99)).at(0.7)
        0.99
    """

    values: tuple[Any, ...]
    n: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", sequence("values", self.values))
        _check_number_of_points(self.n)

    def at(self, share: float) -> Any:
        """Return the value below which a share of the distribution lies."""
        return self.values[int(share * len(self.values))]


def _check_order(low: float, high: float) -> None:
    require(low < high, "high", f"above low = {low:g}", high)


def _check_number_of_points(n: Any) -> None:
    if n is not None:
        integer("n", n, 1, 2**BITS)


def _rounded(value: float, low: float, high: float) -> float:
    """Return a value to `DIGITS` digits, within its bounds."""
    return min(max(float(f"{value:.{DIGITS}g}"), float(low)), float(high))


def points(
    distributions: Mapping[str, Distribution], n: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield `n` points over all distributions together.

    Args:
        distributions: by the name of the hyperparameter; their order does not matter.
        n: number of points; the first of them do not depend on it.
        seed: another one shifts the whole sequence.

    Example:
        >>> few = list(points({"lr": LogUniform(0.01, 1.0)}, 2, 0))
        >>> few == list(points({"lr": LogUniform(0.01, 1.0)}, 4, 0))[:2]
        True
    """
    from scipy.stats import qmc  # takes a second to import, and most studies sample nothing

    names = sorted(distributions)
    sobol = qmc.Sobol(len(names), scramble=False, bits=BITS)
    # scipy warns of numbers of points that are not a power of two
    shares = sobol.random_base2(math.ceil(math.log2(n)))[:n]
    shifts = [_shift(name, seed) for name in names]
    for row in (shares * 2**BITS).astype(int).tolist():
        yield {
            name: distributions[name].at(((digits ^ shift) + 0.5) / 2**BITS)
            for name, digits, shift in zip(names, row, shifts, strict=True)
        }


def _shift(name: str, seed: int) -> int:
    """Return the digits that a seed flips in the numbers of a hyperparameter."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 2**BITS


def as_distribution(name: str, value: Any) -> Any:
    """Return a search space of Ray Tune as a `Distribution`; anything else as it is.

    Knows them by what they have, so that a study can use them and nothing here imports Ray:
    `tune.uniform`, `loguniform`, `choice` and `randint`, and `grid_search`, which is a sequence.

    Raises `ConfigError` for a search space that has no such counterpart.
    """
    if isinstance(value, Mapping) and value.keys() == {"grid_search"}:
        return tuple(value["grid_search"])
    sampler = getattr(value, "sampler", None)
    if sampler is None:
        _refuse_if_of_tune(name, value)
        return value
    kinds = (type(value).__name__, str(sampler))
    if kinds == ("Float", "LogUniform"):
        return LogUniform(value.lower, value.upper)
    if kinds == ("Float", "Uniform"):
        return Uniform(value.lower, value.upper)
    if kinds == ("Categorical", "Uniform"):
        return Choice(tuple(value.categories))
    if kinds == ("Integer", "Uniform"):
        return Choice(tuple(range(value.lower, value.upper)))
    raise _refusal(name, value)


def _refuse_if_of_tune(name: str, value: Any) -> None:
    """Raise `ConfigError` for a function of Tune's, which could give anything."""
    if type(value).__module__.startswith("ray."):
        raise _refusal(name, value)


def _refusal(name: str, value: Any) -> ConfigError:
    kind = type(value).__name__
    sampler = getattr(value, "sampler", None)
    word = type(sampler).__name__.strip("_") if sampler is not None else ""
    allowed = "tune.uniform, loguniform, choice, randint or grid_search"
    return ConfigError(f"{name} must be {allowed}, got {' '.join(filter(None, [kind, word]))}")


def without_number(distribution: Distribution) -> Distribution:
    """Return a distribution that leaves the number of points to its grid."""
    return replace(distribution, n=None)  # type: ignore[type-var]


def number_of_points(samples: int | None, distributions: Iterable[Distribution]) -> int | None:
    """Return the number of points of a grid: what is said, by whichever says it.

    Raises `ConfigError` where nothing, or two different things, are said, and where there is
    nothing to sample.
    """
    distributions = tuple(distributions)
    said = {d.n for d in distributions} | {samples}
    said.discard(None)
    if not distributions:
        require(samples is None, "samples", "left out where nothing is sampled", samples)
        return None
    if not said:
        raise ConfigError("samples must be given where something is sampled (n=200), got nothing")
    if len(said) > 1:
        told = " and ".join(map(str, sorted(n for n in said if n is not None)))
        raise ConfigError(f"samples must be one number for all of a grid, got {told}")
    return integer("samples", said.pop(), 1, 2**BITS)
