"""A flow beside the optimizer on the steps that both have: what a metric is computed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from analysis.measure.formulas import DEFAULT_TOLERANCE, check_tolerance, relative_distance
from analysis.measure.smoothing import DEFAULT_BANDWIDTH, half_window, time_average
from analysis.read import Floats, Trace, common_steps

Columns = Mapping[str, NDArray]
T = TypeVar("T")


@dataclass(frozen=True)
class Scoring:
    """How runs are scored: bandwidth (steps), horizon tolerance, and which flows (None: all)."""

    bandwidth: float = DEFAULT_BANDWIDTH
    tolerance: float = DEFAULT_TOLERANCE
    flows: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        half_window(self.bandwidth)
        check_tolerance(self.tolerance)


class OptimizerSeries:
    """The optimizer's columns, and their time averages, computed when first asked for."""

    def __init__(self, columns: Columns, bandwidth: float) -> None:
        self.columns = columns
        self._bandwidth = bandwidth
        self._averages: dict[str, Floats] = {}

    def average(self, name: str) -> Floats:
        """Time average of a column, on the optimizer's own steps."""
        if name not in self._averages:
            values = column(self.columns, name)
            self._averages[name] = time_average(self.columns["step"], values, self._bandwidth)
        return self._averages[name]


class SideBySide:
    """One flow of one run beside the optimizer, without the row with which either ended.

    Attributes:
        step: (n,), the steps that both have.
        bandwidth: of the time average, in steps.
        tolerance: relative distance at which a prediction counts as lost.
        ended: whether the flow stopped or diverged before the run's end.

    Columns are asked for by name: float64 (n,), or (n, k) for lists, NaN where null. A column that
    no file of the results has is NaN throughout; one that is not among those to be read, because
    no metric declares it in `reads`, is a `KeyError`.
    """

    def __init__(
        self,
        flow: str,
        trace: Trace,
        optimizer: OptimizerSeries,
        scoring: Scoring,
        readable: frozenset[str],
    ) -> None:
        self.bandwidth, self.tolerance = scoring.bandwidth, scoring.tolerance
        self.ended = trace.flow_ending(flow) is not None
        self._trace, self._flow, self._optimizer = trace, trace.scored(flow), optimizer
        self._readable = readable | {"step", "status"}
        self._made: dict[Any, Any] = {}
        self.step, self._here, self._there = common_steps(
            self._flow["step"], optimizer.columns["step"]
        )

    def flow(self, name: str) -> NDArray:
        """Column of the flow, on the common steps."""
        return self._column(self._flow, name)[self._here]

    def optimizer(self, name: str) -> NDArray:
        """Column of the optimizer, on the common steps."""
        return self._column(self._optimizer.columns, name)[self._there]

    def average(self, name: str) -> Floats:
        """Time average of a column of the optimizer, on the common steps."""
        return self.whole_average(name)[self._there]

    def whole_average(self, name: str) -> Floats:
        """Time average of a column of the optimizer, on all of its steps."""
        self._check(name)
        return self._optimizer.average(name)

    @property
    def optimizer_step(self) -> NDArray:
        """All of the optimizer's steps."""
        return self._optimizer.columns["step"]

    def predicted(self, name: str) -> Floats:
        """Flow's prediction of a time average: the `_predicted` column, else its own value."""
        return prefer(self.flow(f"{name}_predicted"), self.flow(name))

    def distance(self, to: str = "discrete") -> Floats:
        """Distance to the process `to`, relative to how far the optimizer has come."""
        of = ("distance", to)
        if of not in self._made:
            self._made[of] = relative_distance(
                self.flow(f"distance_to_{to}"), self.optimizer("distance_from_start")
            )
        return self._made[of]

    def beside(self, other: str, name: str) -> tuple[NDArray, NDArray] | None:
        """Column of this flow and of another, on the steps that these two have; None without it."""
        if other not in self._trace.processes:
            return None
        theirs = self._trace.scored(other)
        _, here, there = common_steps(self._flow["step"], theirs["step"])
        return self._column(self._flow, name)[here], self._column(theirs, name)[there]

    def once(self, function: Callable[[SideBySide], T]) -> T:
        """Keep the result of a function of this object: for what several metrics are made from."""
        if function not in self._made:
            self._made[function] = function(self)
        return self._made[function]

    def _column(self, columns: Columns, name: str) -> NDArray:
        self._check(name)
        return column(columns, name)

    def _check(self, name: str) -> None:
        if name not in self._readable:
            raise KeyError(f"a metric must declare the columns it reads, got {name!r} undeclared")


def column(columns: Columns, name: str) -> NDArray:
    """Take a column; NaN throughout where the results have none of this name.

    >>> column({"step": np.arange(2)}, "toy")
    array([nan, nan])
    """
    if name in columns:
        return columns[name]
    return np.full(len(columns["step"]), np.nan)


def prefer(first: Floats, second: Floats) -> Floats:
    """Take the first where it is defined, else the second.

    >>> prefer(np.array([1.0, np.nan]), np.array([2.0, 3.0]))
    array([1., 3.])
    """
    return np.where(np.isnan(first), second, first)


def predicted(columns: Columns, name: str) -> Floats:
    """Take a flow's prediction of a time average: the `_predicted` column, else its own value.

    >>> predicted({"loss_predicted": np.array([np.nan, 1.5]), "loss": np.ones(2)}, "loss")
    array([1. , 1.5])
    """
    return prefer(columns[f"{name}_predicted"], columns[name])
