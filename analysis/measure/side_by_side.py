"""A flow beside the optimizer on the steps that both have: what a metric is computed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from analysis.measure.formulas import (
    DEFAULT_TOLERANCE,
    check_tolerance,
    log_errors,
    mean_of_errors,
    mean_value,
    relative_distance,
)
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
        self._known: dict[str, NDArray[np.bool_]] = {}

    def average(self, name: str) -> Floats:
        """Time average of a column, on the optimizer's own steps."""
        if name not in self._averages:
            values = column(self.columns, name)
            self._averages[name] = time_average(self.columns["step"], values, self._bandwidth)
        return self._averages[name]

    def known(self, name: str, trace: Trace) -> NDArray[np.bool_]:
        """On which of the optimizer's steps any flow of the run has a finite value in a column."""
        if name not in self._known:
            step = self.columns["step"]
            found = np.zeros(len(step), dtype=bool)
            for flow in trace.flows:
                columns = trace.scored(flow)
                _, here, there = common_steps(columns["step"], step)
                found[there] |= np.isfinite(column(columns, name)[here])
            self._known[name] = found
        return self._known[name]


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

    def whole_optimizer(self, name: str) -> NDArray:
        """Column of the optimizer, on all of its steps."""
        return self._column(self._optimizer.columns, name)

    def columns_of(self, flow: str, names: Sequence[str]) -> dict[str, NDArray] | None:
        """Columns of any flow of the run, on its own steps, and `step`; None without that flow."""
        if flow not in self._trace.processes:
            return None
        theirs = self._trace.scored(flow)
        return {name: self._column(theirs, name) for name in ("step", *names)}

    @property
    def optimizer_step(self) -> NDArray:
        """All of the optimizer's steps."""
        return self._optimizer.columns["step"]

    def predicted(self, name: str) -> Floats:
        """Flow's prediction of a time average: the `_predicted` column, else its own value."""
        return prefer(self.flow(f"{name}_predicted"), self.flow(name))

    def flow_average(self, name: str) -> Floats:
        """Time average of a column of the flow, by the optimizer's window, on the common steps."""
        return self._smoothed(self._column(self._flow, name))

    def predicted_average(self, name: str) -> Floats:
        """Time average of what `predicted` returns, by the optimizer's window."""
        of = ("predicted", name)
        if of not in self._made:
            first = self._column(self._flow, f"{name}_predicted")
            self._made[of] = self._smoothed(prefer(first, self._column(self._flow, name)))
        return self._made[of]

    def distance(self, to: str = "discrete") -> Floats:
        """Distance to `to`, relative to how far the optimizer has come, on the common steps."""
        of = ("distance", to)
        if of not in self._made:
            self._made[of] = relative_distance(
                self.flow(f"distance_to_{to}"), self.optimizer("distance_from_start")
            )
        return self._made[of]

    def everywhere(self, errors: Floats, measurable: NDArray[np.bool_]) -> Floats:
        """Errors on all steps at which the optimizer can be measured against, the lost ones too.

        Every flow of a run is scored over the same steps. Where a flow has no error any more,
        because it ended or a value is missing, its last one is carried forward: what it lost counts
        against it, if by no more than what it had shown.

        Args:
            errors: on the common steps, NaN where undefined.
            measurable: on the optimizer's steps.

        Returns errors on the optimizer's steps; NaN where not measurable, and before the first.
        """
        whole = np.full(len(self.optimizer_step), np.nan)
        whole[self._there] = errors
        return np.where(measurable, carried_forward(whole), np.nan)

    def whole_distance(self, to: str = "discrete") -> Floats:
        """Return `distance` on all of the optimizer's steps, carried forward where it is lost."""
        started = self._optimizer.columns["distance_from_start"]
        known = self._optimizer.known(f"distance_to_{to}", self._trace)
        return self.everywhere(self.distance(to), known & (started > 0) & np.isfinite(started))

    def log_error(self, name: str) -> float:
        """Mean |log prediction - log optimizer's|, of time averages by one window."""
        average = self.whole_average(name)
        errors = log_errors(self.predicted_average(name), self.average(name))
        return mean_of_errors(self.everywhere(errors, average > 0))

    def absolute_error(self, name: str) -> float:
        """Mean |flow's - optimizer's|, of time averages by one window."""
        errors = np.abs(self.flow_average(name) - self.average(name))
        return mean_value(self.everywhere(errors, np.isfinite(self.whole_average(name))))

    def recorded_error(self, name: str) -> float:
        """Mean of an error that the table itself holds, such as `nu_rel_error`."""
        known = self._optimizer.known(name, self._trace)
        return mean_value(self.everywhere(self.flow(name), known))

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

    def _smoothed(self, values: Floats) -> Floats:
        return time_average(self._flow["step"], values, self.bandwidth)[self._here]

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


def carried_forward(values: Floats) -> Floats:
    """Fill undefined values with the last defined one before them.

    >>> carried_forward(np.array([np.nan, 1.0, np.nan, 2.0, np.nan]))
    array([nan,  1.,  1.,  2.,  2.])
    """
    last = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(len(values))))
    return np.where(last < 0, np.nan, values[last])


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
