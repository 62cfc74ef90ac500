"""Numerical settings of processes: declared once, held by runs, sweeps and compiled programs.

`Settings` are part of a run's configuration (and of its id, columns and options of the command
line); `PairedOptions` adds what only `PairedRun` sets. No JAX here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from cflows_ray.checks import integer, one_of, positive, require, sequence
from cflows_ray.declare import NOTHING, at_least, check_declared, declare
from cflows_ray.flows.registry import FLOWS
from cflows_ray.schema import TABLES, TARGET_WINDOWS

SCHEMES: tuple[str, ...] = ("adaptive", "euler", "extrapolated")
STABLE_SCHEMES: tuple[str, ...] = ("chebyshev", "euler")
DTYPES: tuple[str, ...] = ("float32", "float64")
SEED_FLOORS: tuple[str, ...] = ("rounding", "fraction", "none")
MOST_RANK: Final = 64
MOST_SUBSTEPS: Final = 64
"""Most substeps of a flow that chooses them by what it sees: where it wants more, it explodes."""
FIXED_SUBSTEPS: Final = 4
"""Substeps a step where a scheme does not choose them, and nothing is said."""
DEFAULT_FLOWS = ("midpoint", "stable", "central")


def check_flows(name: str, value: Any) -> tuple[str, ...]:
    """Return the flows as a tuple of known names, none twice.

    Raises `ConfigError` naming the one that does not exist.
    """
    names = sequence(name, value)
    for one in names:
        one_of(name, one, FLOWS)
    return names


def check_windows(name: str, value: Any) -> tuple[str, ...]:
    """Return windows as words in their usual order; a single one, numbers, and none will do.

    Raises `ConfigError` naming the one that does not exist.
    """
    if isinstance(value, list | tuple) and not value:
        return ()
    given = (value,) if isinstance(value, str | int) else sequence(name, value)
    words = [str(one) for one in given]
    for word in words:
        one_of(name, word, TARGET_WINDOWS)
    return tuple(word for word in TARGET_WINDOWS if word in words)


def _word_of(words: tuple[str, ...]) -> Any:
    def check(name: str, value: Any) -> str:
        one_of(name, value, words)
        return str(value)

    return check


def _or_left_out(check: Any) -> Any:
    """Let a field be None, which says that it was left out."""
    return lambda name, value: None if value is None else check(name, value)


def _between(least: int, most: int) -> Any:
    return lambda name, value: integer(name, value, least, most)


_COLUMNS = {column.name: column for column in TABLES["runs"]}
_KINDS = {"int64": "integer", "double": "number", "string": "text"}


def _setting(name: str, default: Any, check: Any, kind: str | None = None) -> Any:
    """Declare the field that is this column of the `runs` table, which says what it means."""
    column = _COLUMNS[name]
    absent = NOTHING if column.absent is None else column.absent
    if kind == "names" and absent is not NOTHING:
        absent = tuple(filter(None, absent.split(",")))
    return declare(
        default,
        check=check,
        kind=kind or _KINDS[str(column.type)],
        meaning=column.meaning,
        unit=column.unit,
        absent=absent,
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Numerical settings of a run.

    Attributes:
        flows: processes beside the optimizer.
        num_eigs: tracked directions at the start; their number doubles where one is too few.
        scheme: how the central flow is integrated. "adaptive", of second order, which chooses its
            substeps itself, from 1 to 64 a step, and does not look at `substeps`; "euler", of first
            order; or "extrapolated", of second order with as many derivatives, which needs an even
            number of substeps (docs/theory.md). Left out it is "adaptive", and "euler" where
            `substeps` are given.
        substeps: substeps of the central flow per optimizer step by a scheme that does not choose
            them, and the least number of the stable flow's; 4 where they are left out.
        tolerance: of the adaptive scheme: the estimated error that a substep adds is to be at most
            this part of the way that it makes, both L2, and so is what the effective sharpness has
            above 2.
        stable_scheme: of the stable flow: "chebyshev", of second order and with far fewer gradients
            where it is stiff (for rules with momentum leapfrog, of second order as well:
            docs/theory.md), or "euler", of first. Left out it is "chebyshev" beside the adaptive
            scheme, so that below the edge, where both are gradient flow, the two flows differ by
            nothing but small errors.
        record_every: optimizer steps between rows; the first and the last step always have one.
        dtype: "float32" or "float64", of parameters and derivatives.
        target_windows: steps over which a flow's point minus the iterate is averaged, of 5, 20, 50
            and "loop", the loop period that the central flow knows (columns `distance_to_mean_5`,
            ...); each takes a vector of memory for each process.
        restart_every: flows begin anew, from the optimizer, after so many steps; 0 for never.
        seed_floor: what keeps the swings of alternating and covariance flows alive below the edge:
            "rounding" in the dtype of the run, a "fraction" of a step, or "none".
        seed_roundings: roundings of w that such a seed is as large as.
        seed_fraction: of the length of a step, for the seed_floor "fraction".
        rod_rank, covariance_rank: directions of these flows' covariances.
        alternating_substeps, edge_substeps, rod_substeps, covariance_substeps, corrected_substeps:
            substeps of these flows per optimizer step, at least; more where they see fast rates.
        corrected_sharpness_limit: effective sharpness at which the corrected flow stops.

    Raises `ConfigError` naming the field, the value and what is allowed.
    """

    flows: tuple[str, ...] = _setting("flows", DEFAULT_FLOWS, check_flows, "names")
    num_eigs: int = _setting("num_eigs", 4, at_least(1))
    # these three decide each other's defaults: None stands for them until all are known
    substeps: int = _setting("substeps", None, _or_left_out(at_least(1)))
    scheme: str = _setting("scheme", None, _or_left_out(_word_of(SCHEMES)))
    stable_scheme: str = _setting("stable_scheme", None, _or_left_out(_word_of(STABLE_SCHEMES)))
    tolerance: float = _setting("tolerance", 1e-2, positive)
    record_every: int = _setting("record_every", 1, at_least(1))
    dtype: str = _setting("dtype", "float32", _word_of(DTYPES))
    target_windows: tuple[str, ...] = _setting("target_windows", (), check_windows, "names")
    restart_every: int = _setting("restart_every", 0, at_least(0))
    seed_floor: str = _setting("seed_floor", "rounding", _word_of(SEED_FLOORS))
    # twice: the gradient's rounding was measured to be larger than that of w
    seed_roundings: float = _setting("seed_roundings", 2.0, positive)
    seed_fraction: float = _setting("seed_fraction", 1e-3, positive)
    rod_rank: int = _setting("rod_rank", 2, _between(1, MOST_RANK))
    covariance_rank: int = _setting("covariance_rank", 4, _between(1, MOST_RANK))
    alternating_substeps: int = _setting("alternating_substeps", 4, _between(1, MOST_SUBSTEPS))
    edge_substeps: int = _setting("edge_substeps", 2, _between(1, MOST_SUBSTEPS))
    rod_substeps: int = _setting("rod_substeps", 4, _between(2, MOST_SUBSTEPS))
    covariance_substeps: int = _setting("covariance_substeps", 4, _between(1, MOST_SUBSTEPS))
    corrected_substeps: int = _setting("corrected_substeps", 4, _between(1, MOST_SUBSTEPS))
    # its fastest rate, s + s²/2, has grown past use there
    corrected_sharpness_limit: float = _setting("corrected_sharpness_limit", 20.0, positive)

    def __post_init__(self) -> None:
        check_declared(self)
        self._fill_in("scheme", "adaptive" if self.substeps is None else "euler")
        self._fill_in("substeps", FIXED_SUBSTEPS)
        self._fill_in("stable_scheme", "chebyshev" if self.scheme == "adaptive" else "euler")
        if self.scheme == "extrapolated":
            even = self.substeps % 2 == 0
            require(even, "substeps", "even for the scheme 'extrapolated'", self.substeps)

    def _fill_in(self, name: str, default: Any) -> None:
        if getattr(self, name) is None:
            object.__setattr__(self, name, default)

    @property
    def longest_substep(self) -> float:
        """Length, in optimizer steps, of the longest substep that does not heed the rule's rates.

        The adaptive scheme heeds them; beside it the stable flow makes two steps of two stages or
        more, which are stable up to the same rate as four of Euler's, or with momentum three of
        leapfrog or more, stable up to three times that rate.
        """
        if self.scheme == "adaptive":
            return 1.0 / FIXED_SUBSTEPS
        return (2.0 if self.scheme == "extrapolated" else 1.0) / self.substeps
