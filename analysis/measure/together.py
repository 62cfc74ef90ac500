"""Runs on the same steps, side by side: what all their metrics need is computed for many at once.

A metric is a function of one run (`SideBySide`); on a short run a call of NumPy costs more than its
arithmetic. So series and errors are made for all runs of a batch whose processes were recorded on
the same steps, when the first of them asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from analysis.measure.formulas import log_errors, relative_distance
from analysis.measure.smoothing import time_average
from analysis.read import Floats, Rows, Trace, common_steps

Flags = NDArray[np.bool_]
T = TypeVar("T")

_ROWS = 2**14  # of runs that are held at once: enough to share the cost of a call


class Together:
    """Runs that have the same processes on the same steps (without the row with which one ended).

    Everything has a row per run: arrays (runs, n), on the steps that are named. Where a column is a
    list in each step, a list of arrays (n, k), whose k may differ.
    """

    def __init__(self, traces: Sequence[Trace]) -> None:
        self._traces = traces
        self._rows = {id(trace): i for i, trace in enumerate(traces)}
        self._made: dict[tuple[object, ...], object] = {}

    def row(self, trace: Trace) -> int:
        """Return which row is that of a run."""
        return self._rows[id(trace)]

    def step(self, process: str) -> NDArray:
        """Return the steps of a process."""
        return self._traces[0].scored(process)["step"]

    def common(self, flow: str) -> tuple[NDArray, Rows, Rows]:
        """Find the steps that a flow and the optimizer share, and the rows of each with them."""
        return self._once(
            ("common", flow), lambda: common_steps(self.step(flow), self.step("discrete"))
        )

    def series(self, process: str, name: str) -> Floats:
        """Column of a process, on its own steps; NaN throughout where no run has it."""
        return self._once(("series", process, name), lambda: self._series(process, name))

    def average(self, process: str, name: str, bandwidth: float) -> Floats | list[Floats]:
        """Time average of a column of a process, on its own steps."""
        return self._once(
            ("average", process, name, bandwidth), lambda: self._average(process, name, bandwidth)
        )

    def predicted(self, flow: str, name: str) -> Floats:
        """Flow's prediction of a time average: the `_predicted` column, else its own value."""
        return prefer(self.series(flow, f"{name}_predicted"), self.series(flow, name))

    def predicted_average(self, flow: str, name: str, bandwidth: float) -> Floats:
        """Time average of what `predicted` returns, on the flow's steps."""
        return self._once(
            ("predicted", flow, name, bandwidth),
            lambda: self._smoothed(flow, self.predicted(flow, name), bandwidth),
        )

    def distance(self, flow: str, to: str) -> Floats:
        """Distance of a flow to `to`, relative to how far the optimizer has come: common steps."""

        def made() -> Floats:
            _, here, there = self.common(flow)
            started = self.series("discrete", "distance_from_start")
            return relative_distance(
                self.series(flow, f"distance_to_{to}")[:, here], started[:, there]
            )

        return self._once(("distance", flow, to), made)

    def whole_distance(self, flow: str, to: str) -> Floats:
        """Return `distance` on all of the optimizer's steps, carried forward where it is lost."""

        def made() -> Floats:
            started = self.series("discrete", "distance_from_start")
            known = self.known(f"distance_to_{to}") & (started > 0) & np.isfinite(started)
            return self._everywhere(flow, self.distance(flow, to), known)

        return self._once(("whole distance", flow, to), made)

    def known(self, name: str) -> Flags:
        """On which of the optimizer's steps any flow of the run has a finite value in a column."""

        def made() -> Flags:
            found = np.zeros((len(self._traces), len(self.step("discrete"))), dtype=bool)
            for flow in self._traces[0].flows:
                _, here, there = self.common(flow)
                found[:, there] |= np.isfinite(self.series(flow, name)[:, here])
            return found

        return self._once(("known", name), made)

    def log_error(self, flow: str, name: str, bandwidth: float) -> Floats:
        """Mean |log prediction - log optimizer's| of each run, of time averages by one window."""

        def made() -> Floats:
            _, here, there = self.common(flow)
            average = np.asarray(self.average("discrete", name, bandwidth))
            predicted = self.predicted_average(flow, name, bandwidth)
            errors = log_errors(predicted[:, here], average[:, there])
            errors = self._everywhere(flow, errors, average > 0)
            return row_means(errors, ~np.isnan(errors))

        return self._once(("log error", flow, name, bandwidth), made)

    def absolute_error(self, flow: str, name: str, bandwidth: float) -> Floats:
        """Mean |flow's - optimizer's| of each run, of time averages by one window."""

        def made() -> Floats:
            _, here, there = self.common(flow)
            average = np.asarray(self.average("discrete", name, bandwidth))
            flows = np.asarray(self.average(flow, name, bandwidth))
            errors = np.abs(flows[:, here] - average[:, there])
            errors = self._everywhere(flow, errors, np.isfinite(average))
            return row_means(errors, np.isfinite(errors))

        return self._once(("absolute error", flow, name, bandwidth), made)

    def recorded_error(self, flow: str, name: str) -> Floats:
        """Mean of an error that the table itself holds, of each run."""

        def made() -> Floats:
            _, here, _ = self.common(flow)
            errors = self._everywhere(flow, self.series(flow, name)[:, here], self.known(name))
            return row_means(errors, np.isfinite(errors))

        return self._once(("recorded error", flow, name), made)

    def _series(self, process: str, name: str) -> Floats:
        columns = [trace.scored(process) for trace in self._traces]
        absent = np.full(len(self.step(process)), np.nan)
        return np.array([each.get(name, absent) for each in columns], dtype=np.float64)

    def _average(self, process: str, name: str, bandwidth: float) -> Floats | list[Floats]:
        column = self._traces[0].scored(process).get(name)
        if column is None or column.ndim == 1:
            return self._smoothed(process, self.series(process, name), bandwidth)
        lists = [trace.scored(process)[name] for trace in self._traces]
        averages = time_average(self.step(process), np.concatenate(lists, axis=1), bandwidth)
        return np.split(averages, np.cumsum([each.shape[1] for each in lists])[:-1], axis=1)

    def _smoothed(self, process: str, values: Floats, bandwidth: float) -> Floats:
        return np.ascontiguousarray(time_average(self.step(process), values.T, bandwidth).T)

    def _everywhere(self, flow: str, errors: Floats, measurable: Flags) -> Floats:
        return everywhere(errors, measurable, self.common(flow)[2])

    def _once(self, key: tuple[object, ...], function: Callable[[], T]) -> T:
        if key not in self._made:
            self._made[key] = function()
        return self._made[key]  # type: ignore[return-value]


def together(traces: Iterable[Trace]) -> Iterator[tuple[Trace, Together]]:
    """Yield runs in their order, each with those of about the same time that are on its steps."""
    for batch in _batches(traces):
        keys = [_steps(trace) for trace in batch]
        alike: dict[object, list[Trace]] = {}
        for key, trace in zip(keys, batch, strict=True):
            alike.setdefault(key, []).append(trace)
        made = {key: Together(some) for key, some in alike.items()}
        for key, trace in zip(keys, batch, strict=True):
            yield trace, made[key]


def _batches(traces: Iterable[Trace]) -> Iterator[list[Trace]]:
    batch: list[Trace] = []
    rows = 0
    for trace in traces:
        batch.append(trace)
        rows += sum(len(columns["step"]) for columns in trace.processes.values())
        if rows >= _ROWS:
            yield batch
            batch, rows = [], 0
    if batch:
        yield batch


def _steps(trace: Trace) -> object:
    """Name what runs must share: processes, steps, and which columns are lists."""
    return tuple(
        (name, columns["step"].tobytes(), tuple((c, v.ndim) for c, v in columns.items()))
        for name, columns in ((name, trace.scored(name)) for name in trace.processes)
    )


def everywhere(errors: Floats, measurable: Flags, there: Rows) -> Floats:
    """Errors at some rows of a series, carried forward to all that can be measured against.

    >>> everywhere(np.array([0.1, 0.2]), np.array([True, True, True, False]), slice(0, 2))
    array([0.1, 0.2, 0.2, nan])
    """
    whole = np.full(measurable.shape, np.nan)
    whole[..., there] = errors
    return np.where(measurable, carried_forward(whole), np.nan)


def carried_forward(values: Floats) -> Floats:
    """Fill undefined values with the last defined one before them, along the last axis.

    >>> carried_forward(np.array([np.nan, 1.0, np.nan, 2.0, np.nan]))
    array([nan,  1.,  1.,  2.,  2.])
    """
    places = np.where(np.isnan(values), -1, np.arange(values.shape[-1]))
    last = np.maximum.accumulate(places, axis=-1)
    return np.where(last < 0, np.nan, np.take_along_axis(values, last, axis=-1))


def row_means(values: Floats, keep: Flags) -> Floats:
    """Mean of what is kept of each row; NaN of nothing. The same sums as row by row.

    >>> row_means(np.array([[1.0, 3.0], [5.0, 7.0]]), np.array([[True, True], [False, True]]))
    array([2., 7.])
    """
    if not (keep == keep[:1]).all():
        return np.array(
            [v[k].mean() if k.any() else np.nan for v, k in zip(values, keep, strict=True)]
        )
    if not keep[0].any():
        return np.full(len(values), np.nan)
    return np.ascontiguousarray(values[:, keep[0]]).mean(axis=1)


def prefer(first: Floats, second: Floats) -> Floats:
    """Take the first where it is defined, else the second.

    >>> prefer(np.array([1.0, np.nan]), np.array([2.0, 3.0]))
    array([1., 3.])
    """
    return np.where(np.isnan(first), second, first)
