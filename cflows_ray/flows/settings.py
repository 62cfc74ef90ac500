"""Numerical settings of processes: declared once, held by runs, sweeps and compiled programs.

`Settings` are part of a run's configuration (and of its id, columns and options of the command
line); `PairedOptions` adds what only `PairedRun` sets. No JAX here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cflows_ray.checks import one_of, require, sequence
from cflows_ray.declare import at_least, check_declared, declare
from cflows_ray.flows.registry import FLOWS

SCHEMES: tuple[str, ...] = ("euler", "extrapolated")
DTYPES: tuple[str, ...] = ("float32", "float64")
DEFAULT_FLOWS = ("midpoint", "stable", "central")


def check_flows(name: str, value: Any) -> tuple[str, ...]:
    """Return the flows as a tuple of known names, none twice.

    Raises `ConfigError` naming the one that does not exist.
    """
    names = sequence(name, value)
    for one in names:
        one_of(name, one, FLOWS)
    return names


def _word_of(words: tuple[str, ...]) -> Any:
    def check(name: str, value: Any) -> str:
        one_of(name, value, words)
        return str(value)

    return check


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Numerical settings of a run.

    Attributes:
        flows: processes beside the optimizer.
        num_eigs: tracked directions at the start; their number doubles where one is too few.
        substeps: substeps of the central flow per optimizer step, and the least number of the
            stable flow's.
        scheme: "euler", of first order, or "extrapolated", of second order with as many
            derivatives; the latter needs an even number of substeps (docs/theory.md).
        record_every: optimizer steps between rows; the first and the last step always have one.
        dtype: "float32" or "float64", of parameters and derivatives.

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
    substeps: int = declare(
        4,
        check=at_least(1),
        kind="integer",
        meaning="substeps of the central flow per optimizer step",
        unit="1/step",
    )
    scheme: str = declare(
        "euler",
        check=_word_of(SCHEMES),
        kind="text",
        meaning="how the central flow makes its substeps: euler or extrapolated",
        absent="euler",
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

    def __post_init__(self) -> None:
        check_declared(self)
        if self.scheme == "extrapolated":
            even = self.substeps % 2 == 0
            require(even, "substeps", "even for the scheme 'extrapolated'", self.substeps)

    @property
    def longest_substep(self) -> float:
        """Length, in optimizer steps, of the longest explicit substep of the central flow."""
        return (2.0 if self.scheme == "extrapolated" else 1.0) / self.substeps
