"""A flow beside the optimizer on the steps that both have: what a metric is computed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from analysis.measure.formulas import DEFAULT_TOLERANCE, check_tolerance
from analysis.measure.smoothing import DEFAULT_BANDWIDTH, half_window, time_average
from analysis.measure.together import Together, prefer
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
        together: Together,
        scoring: Scoring,
        readable: frozenset[str],
    ) -> None:
        self.bandwidth, self.tolerance = scoring.bandwidth, scoring.tolerance
        self.ended = trace.flow_ending(flow) is not None
        self._trace, self._name = trace, flow
        self._flow, self._optimizer = trace.scored(flow), trace.scored("discrete")
        self._together, self._row = together, together.row(trace)
        self._readable = readable | {"step", "status"}
        self._made: dict[Any, Any] = {}
        self.step, self._here, self._there = together.common(flow)

    def flow(self, name: str) -> NDArray:
        """Column of the flow, on the common steps."""
        return self._column(self._flow, name)[self._here]

    def optimizer(self, name: str) -> NDArray:
        """Column of the optimizer, on the common steps."""
        return self._column(self._optimizer, name)[self._there]

    def average(self, name: str) -> Floats:
        """Time average of a column of the optimizer, on the common steps."""
        return self.whole_average(name)[self._there]

    def whole_average(self, name: str) -> Floats:
        """Time average of a column of the optimizer, on all of its steps."""
        return self.average_of("discrete", name)

    def whole_optimizer(self, name: str) -> NDArray:
        """Column of the optimizer, on all of its steps."""
        return self._column(self._optimizer, name)

    def columns_of(self, flow: str, names: Sequence[str]) -> dict[str, NDArray] | None:
        """Columns of any flow of the run, on its own steps, and `step`; None without that flow."""
        if flow not in self._trace.processes:
            return None
        theirs = self._trace.scored(flow)
        return {name: self._column(theirs, name) for name in ("step", *names)}

    def average_of(self, process: str, name: str, bandwidth: float | None = None) -> Floats:
        """Time average of a column of any process of the run, on its own steps.

        By the bandwidth of the study, or by another.
        """
        self._check(name)
        wanted = self.bandwidth if bandwidth is None else bandwidth
        return self._together.average(process, name, wanted)[self._row]

    @property
    def optimizer_step(self) -> NDArray:
        """All of the optimizer's steps."""
        return self._optimizer["step"]

    def flow_average(self, name: str) -> Floats:
        """Time average of a column of the flow, by the optimizer's window, on the common steps."""
        return self.average_of(self._name, name)[self._here]

    def average_in_common(self, name: str) -> Floats:
        """Time average of a column of the flow, of its values on the common steps alone."""
        if isinstance(self._here, slice):  # they are its own steps
            return self.average_of(self._name, name)
        return time_average(self.step, self.flow(name), self.bandwidth)

    def distance(self, to: str = "discrete") -> Floats:
        """Distance to `to`, relative to how far the optimizer has come, on the common steps."""
        self._check(f"distance_to_{to}", "distance_from_start")
        return self._together.distance(self._name, to)[self._row]

    def whole_distance(self, to: str = "discrete") -> Floats:
        """Return `distance` on all of the optimizer's steps, carried forward where it is lost."""
        self._check(f"distance_to_{to}", "distance_from_start")
        return self._together.whole_distance(self._name, to)[self._row]

    def log_error(self, name: str) -> float:
        """Mean |log prediction - log optimizer's|, of time averages by one window."""
        self._check(name, f"{name}_predicted")
        return float(self._together.log_error(self._name, name, self.bandwidth)[self._row])

    def absolute_error(self, name: str) -> float:
        """Mean |flow's - optimizer's|, of time averages by one window."""
        self._check(name)
        return float(self._together.absolute_error(self._name, name, self.bandwidth)[self._row])

    def recorded_error(self, name: str) -> float:
        """Mean of an error that the table itself holds, such as `nu_rel_error`."""
        self._check(name)
        return float(self._together.recorded_error(self._name, name)[self._row])

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

    def _check(self, *names: str) -> None:
        for name in names:
            if name not in self._readable:
                raise KeyError(
                    f"a metric must declare the columns it reads, got {name!r} undeclared"
                )


def column(columns: Columns, name: str) -> NDArray:
    """Take a column; NaN throughout where the results have none of this name.

    >>> column({"step": np.arange(2)}, "toy")
    array([nan, nan])
    """
    if name in columns:
        return columns[name]
    return np.full(len(columns["step"]), np.nan)


def predicted(columns: Columns, name: str) -> Floats:
    """Take a flow's prediction of a time average: the `_predicted` column, else its own value.

    >>> predicted({"loss_predicted": np.array([np.nan, 1.5]), "loss": np.ones(2)}, "loss")
    array([1. , 1.5])
    """
    return prefer(columns[f"{name}_predicted"], columns[name])
