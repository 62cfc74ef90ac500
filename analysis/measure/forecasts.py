"""Errors of flows by lead time: how far off a forecast is, so many steps after it was made.

In a run with `restart_every=N` flows begin anew at the optimizer every N steps; `start_step` of a
row says when its flows started, and its lead time is step - start_step. Any other run is one
forecast.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.measure.claims import TARGET_PREFIX, WINDOW_TARGETS
from analysis.measure.formulas import EDGE
from analysis.measure.frames import Frames, tables_of
from analysis.measure.metrics.delay import BANDWIDTH, crossing, oscillation_delay
from analysis.measure.scoring import ended_runs
from analysis.measure.side_by_side import column
from analysis.measure.together import carried_forward
from analysis.measure.variances import OSCILLATION, variance_series
from analysis.read import (
    MAIN_FLOW,
    REFERENCE_FLOW,
    Floats,
    Source,
    Trace,
    common_steps,
    configuration_of,
    declare_like,
)

PHASES = ("before the edge", "onset", "at the edge")
MOST_LEADS = 24
_ALWAYS = ("start_step", "distance_from_start", "effective_sharpness", *OSCILLATION)


@dataclass(frozen=True)
class _Forecast:
    """Rows of the optimizer after one start: its steps, and how far it has come since."""

    start: int
    step: NDArray[np.int64]
    travelled: Floats
    phase: str


def forecast_errors(results: Source | Frames, targets: Sequence[str] | None = None) -> pd.DataFrame:
    """Errors of every finished run by flow, target, phase and lead time, means over its forecasts.

    Args:
        results: from `load`, the path of a folder, or frames of `run_paired`.
        targets: of `distance_to_...`; by default all that the tables have.

    Columns `run_id`, the configuration, `seed`, `flow`, `target`, `phase`, `lead` (steps);
    `n_forecasts`, `n_ended` (in which the flow had ended by then; its last error counts); `error`
    (param), and for the same forecasts `persistence`, the distance that the optimizer has come
    since the start, and `stable`, the stable flow's error; NaN without it. At most 24 leads of a
    target, evenly spread in their logarithm; one without a value, as of a window's mean between the
    ends of windows, has no row. The phase is the forecast's: all before the optimizer's effective
    sharpness comes to 2, all after it oscillates as predicted (`delay`), or between or across.

    >>> frame = forecast_errors(load(example_sweep))
    >>> sorted(frame["target"].unique()), int(frame["lead"].max())
    (['discrete', 'midpoint'], 600)
    """
    tables = tables_of(results)
    distances = [name for name in tables.step_columns if name.startswith(TARGET_PREFIX)]
    known = [name.removeprefix(TARGET_PREFIX) for name in distances]
    wanted = [t for t in known if targets is None or t in targets]
    for name in targets or ():
        if name not in known:
            raise ValueError(f"targets must be of {known}, got {name!r}")
    columns = [n for n in tables.step_columns if n in _ALWAYS or n in _columns(wanted)]
    rows: list[dict[str, Any]] = []
    names = ["run_id", *configuration_of(tables.runs), "seed"]
    for run, trace in ended_runs(tables, columns):
        if trace is not None and str(run["status"]) == "finished":
            identity = {name: run[name] for name in names}
            rows += [identity | row for row in _of_run(trace, wanted)]
    own = ["flow", "target", "phase", "lead", "n_forecasts", "n_ended", "error", "persistence"]
    frame = pd.DataFrame(rows, columns=[*names, *own, "stable"])
    return declare_like(frame, tables.runs)


def _columns(targets: Iterable[str]) -> set[str]:
    return {TARGET_PREFIX + name for name in targets}


def _of_run(trace: Trace, targets: Sequence[str]) -> Iterator[dict[str, Any]]:
    forecasts = _forecasts(trace)
    for target in targets if trace.flows else ():
        rows = {flow: _rows(trace, flow, target) for flow in trace.flows}
        scored = [_scored(rows, target, forecast) for forecast in forecasts]
        leads = _leads([one.lead[one.is_measured] for one in scored])
        errors = {flow: _by_lead(flow, forecasts, scored, leads) for flow in trace.flows}
        stable = errors.get(REFERENCE_FLOW, {})
        for flow, found in errors.items():
            for (phase, lead), values in found.items():
                e, travelled, ended = np.array(values).T
                reference = np.array(stable.get((phase, lead), [])).T
                same = len(reference) > 0 and reference.shape[1] == len(e)
                keep = ~np.isnan(e) & (travelled > 0)
                if same:
                    keep &= ~np.isnan(reference[0])
                if not keep.any():
                    continue
                yield {
                    "flow": flow, "target": target, "phase": phase, "lead": lead,
                    "n_forecasts": int(keep.sum()), "n_ended": int(ended[keep].sum()),
                    "error": float(e[keep].mean()), "persistence": float(travelled[keep].mean()),
                    "stable": float(reference[0][keep].mean()) if same else np.nan,
                }  # fmt: skip


def _forecasts(trace: Trace) -> list[_Forecast]:
    if "discrete" not in trace.processes:
        return []
    optimizer = trace.scored("discrete")
    step, travelled = optimizer["step"], column(optimizer, "distance_from_start")
    begun = np.nan_to_num(column(optimizer, "start_step"))
    onset, settled = _onset(trace)
    found = []
    for start in np.unique(begun):
        mine = (begun == start) & (step > start)
        if mine.any():
            phase = _phase(float(start), float(step[mine][-1]), onset, settled)
            found.append(_Forecast(int(start), step[mine], travelled[mine], phase))
    return found


def _onset(trace: Trace) -> tuple[float, float]:
    """Find when the optimizer crosses the edge and when it oscillates as predicted."""
    optimizer = trace.scored("discrete")
    step, sharpness = optimizer["step"], column(optimizer, "effective_sharpness")
    if len(sharpness) and sharpness[0] >= EDGE:
        return float(step[0]), float(step[0])
    onset = crossing(step, sharpness)
    if np.isnan(onset):
        return np.inf, np.inf
    if MAIN_FLOW not in trace.processes or not set(OSCILLATION) <= set(trace.scored(MAIN_FLOW)):
        return onset, onset
    columns = trace.scored(MAIN_FLOW)
    found = oscillation_delay(columns["step"], *variance_series(columns, BANDWIDTH), onset)
    return onset, onset + found.steps if found.observed else np.inf


def _phase(start: float, end: float, onset: float, settled: float) -> str:
    if end <= onset:
        return PHASES[0]
    return PHASES[2] if start >= settled else PHASES[1]


def _leads(measured: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Lead times that are measured in some forecast, few and evenly spread."""
    there = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *measured]))
    if not len(there):
        return there
    places = np.geomspace(1, len(there), MOST_LEADS).round().astype(int) - 1
    return there[np.unique(places)]


class _Scored(NamedTuple):
    """Errors of one forecast to a target: its lead times, where there is one, and by flow."""

    lead: NDArray[np.int64]
    is_measured: NDArray[np.bool_]
    errors: dict[str, Floats]
    is_gone: dict[str, NDArray[np.bool_]]


def _scored(rows: Mapping[str, _Rows], target: str, forecast: _Forecast) -> _Scored:
    """Score all flows in a forecast; of one that has ended its last error stands.

    The mean over a window has an error in the window's last row only, where any flow has one; it is
    not carried on to the rows between, at which the optimizer has come further. A flow that ended
    before it had an error has stayed where it began, as far off as persistence.
    """
    found = {flow: _of_forecast(of_flow, forecast) for flow, of_flow in rows.items()}
    is_gone = {f: gone for f, (_, gone) in found.items()}
    every = np.array([error for error, _ in found.values()])
    is_measured = np.isfinite(every).any(axis=0)
    if target not in WINDOW_TARGETS:  # measured in every row, whether or not a flow is left
        is_measured |= np.all(list(is_gone.values()), axis=0)
    errors = {}
    for flow, (error, gone) in found.items():
        last = carried_forward(error)
        stands = np.where(np.isnan(last), forecast.travelled, last)
        errors[flow] = np.where(gone & is_measured, stands, error)
    return _Scored(forecast.step - forecast.start, is_measured, errors, is_gone)


def _by_lead(
    flow: str,
    forecasts: Sequence[_Forecast],
    scored: Sequence[_Scored],
    leads: NDArray[np.int64],
) -> dict[tuple[str, int], list[tuple[float, float, float]]]:
    """List by phase and lead, for each forecast: error, distance travelled, whether it ended."""
    found: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    for forecast, one in zip(forecasts, scored, strict=True):
        for place in np.flatnonzero(np.isin(one.lead, leads)):
            entry = (
                one.errors[flow][place], forecast.travelled[place], float(one.is_gone[flow][place])
            )  # fmt: skip
            found.setdefault((forecast.phase, int(one.lead[place])), []).append(entry)
    return found


class _Rows(NamedTuple):
    """Rows of a flow, without those with which it ended: (n,) each."""

    step: NDArray[np.int64]
    start: Floats
    error: Floats


def _rows(trace: Trace, flow: str, target: str) -> _Rows:
    columns = trace.scored(flow)
    start = np.nan_to_num(column(columns, "start_step"))
    return _Rows(columns["step"], start, column(columns, TARGET_PREFIX + target))


def _of_forecast(rows: _Rows, forecast: _Forecast) -> tuple[Floats, NDArray[np.bool_]]:
    """Take a flow's errors at the steps of a forecast, NaN for none, and where it had ended."""
    mine = rows.start == forecast.start
    step, here, there = common_steps(rows.step[mine], forecast.step)
    error = np.full(len(forecast.step), np.nan)
    error[there] = rows.error[mine][here]
    return error, forecast.step > step.max(initial=forecast.start)
