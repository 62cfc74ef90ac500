"""Numerical settings of processes: declared once, held by runs, sweeps and compiled programs.

`Settings` are part of a run's configuration (and of its id, columns and options of the command
line); `PairedOptions` adds what only `PairedRun` sets. No JAX here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from cflows_ray.checks import integer, one_of, positive, require, sequence
from cflows_ray.declare import at_least, check_declared, declare
from cflows_ray.flows.registry import FLOWS
from cflows_ray.schema import TARGET_WINDOWS

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


def _substeps(default: int, flow: str, least: int = 1) -> Any:
    def check(name: str, value: Any) -> int:
        return integer(name, value, least, MOST_SUBSTEPS)

    meaning = f"substeps of the {flow} flow per optimizer step, at least"
    return declare(
        default, check=check, kind="integer", meaning=meaning, unit="1/step", absent=default
    )


def _rank(default: int, flow: str) -> Any:
    def check(name: str, value: Any) -> int:
        return integer(name, value, 1, MOST_RANK)

    meaning = f"directions of the {flow} flow's covariance"
    return declare(default, check=check, kind="integer", meaning=meaning, absent=default)


def _real(default: float, meaning: str) -> Any:
    return declare(default, check=positive, kind="number", meaning=meaning, absent=default)


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

    flows: tuple[str, ...] = declare(
        DEFAULT_FLOWS,
        check=check_flows,
        kind="names",
        meaning="processes beside the discrete one, comma-separated",
    )
    num_eigs: int = declare(
        4, check=at_least(1), kind="integer", meaning="tracked directions at the start"
    )
    # these three decide each other's defaults: None stands for them until all are known
    substeps: int = declare(
        None,
        check=_or_left_out(at_least(1)),
        kind="integer",
        meaning="fixed substeps of the central flow per optimizer step",
        unit="1/step",
    )
    scheme: str = declare(
        None,
        check=_or_left_out(_word_of(SCHEMES)),
        kind="text",
        meaning="how the central flow makes its substeps: adaptive, euler or extrapolated",
        absent="euler",
    )
    stable_scheme: str = declare(
        None,
        check=_or_left_out(_word_of(STABLE_SCHEMES)),
        kind="text",
        meaning="how the stable flow is integrated: chebyshev (leapfrog with momentum) or euler",
        absent="euler",
    )
    tolerance: float = _real(
        1e-2, "local error of the adaptive scheme, over the way of each substep"
    )
    record_every: int = declare(
        1,
        check=at_least(1),
        kind="integer",
        meaning="distance between recorded steps",
        unit="steps",
    )
    dtype: str = declare(
        "float32",
        check=_word_of(DTYPES),
        kind="text",
        meaning="floating-point type of parameters and derivatives",
    )

    target_windows: tuple[str, ...] = declare(
        (),
        check=check_windows,
        kind="names",
        meaning="windows over which flows are compared in the mean: 5, 20, 50, loop",
        absent=(),
    )
    restart_every: int = declare(
        0,
        check=at_least(0),
        kind="integer",
        meaning="steps after which flows begin anew at the optimizer; 0 for never",
        unit="steps",
        absent=0,
    )
    seed_floor: str = declare(
        "rounding",
        check=_word_of(SEED_FLOORS),
        kind="text",
        meaning="what keeps a flow's swing alive below the edge: rounding, fraction or none",
        absent="rounding",
    )
    # twice: the gradient's rounding was measured to be larger than that of w
    seed_roundings: float = _real(2.0, "roundings of w that a seed is as large as")
    seed_fraction: float = _real(1e-3, "length of a seed over that of a step, for fraction")
    rod_rank: int = _rank(2, "rod")
    covariance_rank: int = _rank(4, "covariance")
    alternating_substeps: int = _substeps(4, "alternating")
    edge_substeps: int = _substeps(2, "edge")
    rod_substeps: int = _substeps(4, "rod", least=2)
    covariance_substeps: int = _substeps(4, "covariance")
    corrected_substeps: int = _substeps(4, "corrected")
    # its fastest rate, s + s²/2, has grown past use there
    corrected_sharpness_limit: float = _real(20.0, "sharpness at which the corrected flow stops")

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
