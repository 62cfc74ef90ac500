"""From one run's trajectories to its rows of numbers: every metric of every flow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.measure.frames import Tables
from analysis.measure.metric import Metric
from analysis.measure.metrics import all_metrics
from analysis.measure.side_by_side import OptimizerSeries, Scoring, SideBySide
from analysis.read import (
    CONFIGURATION,
    ResultsError,
    Trace,
    configuration_of,
    declare_like,
    processes_of,
)


def columns_read(results: Tables, metrics: Iterable[Metric] | None = None) -> list[str]:
    """Columns of `steps` that the metrics (all by default) declare and that the results have."""
    wanted = {name for m in (metrics or all_metrics()) for name in m.reads} | {"status"}
    return [name for name in results.step_columns if name in wanted]


def score(
    trace: Trace, scoring: Scoring, metrics: Sequence[Metric] | None = None
) -> Iterator[dict[str, Any]]:
    """Metrics (all by default) of every flow of one run."""
    if "discrete" not in trace.processes:
        return
    wanted = all_metrics() if metrics is None else metrics
    readable = frozenset(name for m in wanted for name in m.reads)
    optimizer = OptimizerSeries(trace.scored("discrete"), scoring.bandwidth)
    for flow in sorted(trace.flows if scoring.flows is None else scoring.flows):
        if flow not in trace.processes:
            continue
        run = SideBySide(flow, trace, optimizer, scoring, readable)
        row: dict[str, Any] = {
            "flow": flow,
            "flow_status": trace.flow_ending(flow) or ("ok" if len(run.step) else "no_data"),
            "last_step": float(run.step[-1]) if len(run.step) else np.nan,
        }
        for one in wanted:
            row |= one.values(run)
        yield row


def check_optimizer(results: Tables) -> None:
    """Raise `ResultsError` if the results were loaded without what flows are measured against."""
    if results.leaves_out("discrete"):
        raise ResultsError(
            "where: leaves out the process 'discrete', which flows are measured against; "
            "choose flows with accuracy(..., flows=[...]) instead"
        )


def ended_runs(
    results: Tables, columns: Iterable[str]
) -> Iterator[tuple[Mapping[str, Any], Trace | None]]:
    """Stream the runs that have ended: each row of `runs` with its trace, None without steps.

    Raises `ResultsError` if the results were loaded without the process `discrete`.
    """
    check_optimizer(results)
    runs = results.runs[results.runs["status"].astype("str") != "running"]
    rows: list[Any] = runs.to_dict("records")
    waiting = {str(row["run_id"]): row for row in rows}
    for trace in results.traces(columns):
        if trace.run_id in waiting:
            yield waiting.pop(trace.run_id), trace
    for row in waiting.values():
        yield row, None


def run_rows(
    run: Mapping[str, Any], scored: Iterable[dict[str, Any]], results: Tables, scoring: Scoring
) -> list[dict[str, Any]]:
    """Rows of `accuracy` of one run: those scored, and `no_data` for its other flows.

    So that a run without readable steps, or a flow without any, is counted all the same.
    """
    rows = list(scored)
    processes = processes_of(results.runs)
    listed = str(run["flows"]).split(",") if pd.notna(run["flows"]) else []
    flows = {f for f in listed if f and processes[f]["predicts"]}
    absent = flows - {str(row["flow"]) for row in rows}
    wanted = absent if scoring.flows is None else absent.intersection(scoring.flows)
    lost = [{"flow": f, "flow_status": "no_data"} for f in wanted if not results.leaves_out(f)]
    names = ("run_id", "sweep", *configuration_of(results.runs), "seed")
    identity = {"run_status": run["status"]} | {name: run[name] for name in names}
    return [identity | row for row in [*rows, *lost]]


def accuracy_frame(rows: list[dict[str, Any]], runs: pd.DataFrame | None = None) -> pd.DataFrame:
    """Frame of `accuracy` from rows of identity and metrics, sorted, with units and categories.

    `runs`, if given, tells what the configuration is and what type its columns have.
    """
    metrics = all_metrics()
    configuration = CONFIGURATION if runs is None else configuration_of(runs)
    identity = ["run_id", "sweep", *configuration, "seed"]
    columns = [name for m in metrics for name in m.columns]
    order = [*identity, "flow", "run_status", "flow_status", "last_step", *columns]
    frame = pd.DataFrame(rows, columns=order)
    flags = [f"{m.name}_observed" for m in metrics if m.censored]
    for name in ("last_step", *columns, *(n for n in ("lr", "beta2", "eps") if n in frame)):
        frame[name] = frame[name].astype("boolean" if name in flags else "float64")
    for name in configuration:
        if runs is not None and name not in CONFIGURATION:
            frame[name] = frame[name].astype(runs[name].dtype)
    categories = ["sweep", "workload", "criterion", "rule", "schedule", "flow"]
    for name in (*categories, "run_status", "flow_status"):
        if name in frame:
            frame[name] = frame[name].astype("category")
    keys = ["sweep", "workload", "workload_options", "criterion", "rule", "lr", "seed", "run_id"]
    keys = [name for name in keys if name in frame]
    frame = frame.sort_values([*keys, "flow"], kind="stable", ignore_index=True)
    frame.attrs["units"] = {m.name: m.unit for m in metrics} | {"last_step": "steps"}
    return frame if runs is None else declare_like(frame, runs)
