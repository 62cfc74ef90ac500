"""What a metric is: its declaration, which is all that the rest of the package knows of it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from analysis.measure.formulas import Horizon
from analysis.measure.side_by_side import SideBySide

Function = Callable[[SideBySide], float | Horizon]

SECTIONS = ("summary", "comparison", "trend")
"""Where a metric may be shown: the tables of means, of flows compared, and against a rate."""

ANY = (-math.inf, math.inf)
"""Bounds of a metric that may have any value."""


@dataclass(frozen=True)
class Metric:
    """One metric of a run × flow, declared.

    Made by the decorator `metric`; see there for an example.

    Attributes:
        name: column of `accuracy`.
        unit: empty for none.
        label: what axes and tables call it.
        meaning: one sentence.
        is_error: whether it is an error, so that smaller is better and it cannot be negative.
        head: heading of its column in summary tables; the terminal breaks it at the first space.
        reads: columns of `steps` that the function reads.
        smoothed: whether it depends on the time average's bandwidth.
        censored: whether the end of a run can cut it short; the function then returns a `Horizon`,
            a column `<name>_observed` goes with it, and its median is Kaplan-Meier's.
        per_run: whether it is the optimizer's, the same for all flows of a run.
        percent: whether tables show it times 100.
        bounds: the least and the largest value that it can have, at which intervals of means are
            cut; an error's least is 0 in any case.
        shown_in: which of `SECTIONS` show it.
        also: further columns of `accuracy` that go with it and are no metrics, by name.
        function: computes it.
    """

    name: str
    unit: str
    label: str
    meaning: str
    is_error: bool = True
    head: str = field(default="", kw_only=True)
    reads: tuple[str, ...] = field(default=(), kw_only=True)
    smoothed: bool = field(default=False, kw_only=True)
    censored: bool = field(default=False, kw_only=True)
    per_run: bool = field(default=False, kw_only=True)
    percent: bool = field(default=False, kw_only=True)
    bounds: tuple[float, float] = field(default=ANY, kw_only=True)
    shown_in: tuple[str, ...] = field(default=(), kw_only=True)
    also: Mapping[str, Callable[[SideBySide], float]] = field(default_factory=dict, kw_only=True)
    function: Function = field(kw_only=True)

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"metric must be named by an identifier, got {self.name!r}")
        for section in self.shown_in:
            if section not in SECTIONS:
                raise ValueError(f"shown_in must be of {list(SECTIONS)}, got {section!r}")
        if "comparison" in self.shown_in and not self.is_error:
            raise ValueError(f"shown_in must be without 'comparison' for no error, got {self.name}")
        low, high = self.bounds
        if not low < high:
            raise ValueError(f"bounds must be a smaller and a larger number, got {self.bounds}")

    @property
    def columns(self) -> list[str]:
        """Columns that the metric has in `accuracy`, in order."""
        return [self.name, *([f"{self.name}_observed"] if self.censored else []), *self.also]

    def within_bounds(self, value: float) -> float:
        """Move a limit of an interval to the nearest value that the metric can have; NaN stays."""
        low, high = self.bounds
        return float(np.clip(value, max(low, 0.0) if self.is_error else low, high))

    @property
    def short(self) -> str:
        """Heading of its column in a table."""
        return self.head or self.label

    def values(self, run: SideBySide) -> dict[str, float | bool]:
        """Compute all its columns for one run and flow."""
        found = self.function(run)
        result: dict[str, float | bool]
        if isinstance(found, Horizon):
            result = {self.name: found.steps, f"{self.name}_observed": found.observed}
        else:
            result = {self.name: float(found)}
        return result | {name: float(of(run)) for name, of in self.also.items()}


def metric(
    *,
    label: str,
    unit: str = "",
    head: str = "",
    reads: tuple[str, ...] = (),
    is_error: bool = True,
    smoothed: bool = False,
    censored: bool = False,
    per_run: bool = False,
    percent: bool = False,
    bounds: tuple[float, float] = ANY,
    shown_in: tuple[str, ...] = ("summary",),
    also: Mapping[str, Callable[[SideBySide], float]] | None = None,
    name: str | None = None,
) -> Callable[[Function], Metric]:
    """Declare a metric: a function of a `SideBySide` whose docstring says what it means.

    The arguments are the attributes of `Metric`; `meaning` is the docstring's first paragraph, and
    `name` the function's, if not given.

    >>> @metric(label="largest loss gap", unit="loss", reads=("train_loss",))
    ... def loss_gap(run):
    ...     '''Largest |flow's loss - optimizer's loss| over all steps.'''
    ...     return np.nanmax(np.abs(run.flow("train_loss") - run.optimizer("train_loss")))
    >>> loss_gap.name, loss_gap.meaning
    ('loss_gap', "Largest |flow's loss - optimizer's loss| over all steps.")
    """

    def declare(function: Function) -> Metric:
        text = inspect.getdoc(function) or ""
        return Metric(
            name=name or str(getattr(function, "__name__", "")), unit=unit, label=label,
            meaning=" ".join(text.partition("\n\n")[0].split()), is_error=is_error, head=head,
            reads=reads, smoothed=smoothed, censored=censored, per_run=per_run, percent=percent,
            bounds=bounds, shown_in=shown_in, also=also or {}, function=function,
        )  # fmt: skip

    return declare
