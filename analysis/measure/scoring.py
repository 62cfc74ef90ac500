"""From one run's trajectories to its rows of numbers: every metric of every flow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.measure.frames import Tables
from analysis.measure.metric import Metric
from analysis.measure.metrics import all_metrics
from analysis.measure.side_by_side import Scoring, SideBySide
from analysis.measure.together import Together
from analysis.read import (
    CONFIGURATION,
    ResultsError,
    Trace,
    configuration_of,
    declare_like,
    processes_of,
    without_attrs,
)


def columns_read(results: Tables, metrics: Iterable[Metric] | None = None) -> list[str]:
    """Columns of `steps` that the metrics (all by default) declare and that the results have."""
    wanted = {name for m in (metrics or all_metrics()) for name in m.reads} | {"status"}
    return [name for name in results.step_columns if name in wanted]


def score(
    trace: Trace,
    scoring: Scoring,
    metrics: Sequence[Metric] | None = None,
    among: Together | None = None,
) -> Iterator[dict[str, Any]]:
    """Metrics (all by default) of every flow of one run, computed among others or by itself."""
    if "discrete" not in trace.processes:
        return
    wanted = all_metrics() if metrics is None else metrics
    readable = frozenset(name for m in wanted for name in m.reads)
    among = Together([trace]) if among is None else among
    of_run: dict[str, float | bool] = {}
    for flow in sorted(trace.flows if scoring.flows is None else scoring.flows):
        if flow not in trace.processes:
            continue
        run = SideBySide(flow, trace, among, scoring, readable)
        row: dict[str, Any] = {
            "flow": flow,
            "flow_status": trace.flow_ending(flow) or ("ok" if len(run.step) else "no_data"),
            "last_step": float(run.step[-1]) if len(run.step) else np.nan,
        }
        for one in wanted:
            if one.name not in of_run:
                values = one.values(run)
                row |= values
                if one.per_run:
                    of_run |= values
        yield row | of_run


def check_optimizer(results: Tables) -> None:
    """Raise `ResultsError` if the results were loaded without what flows are measured against."""
    if results.leaves_out("discrete"):
        raise ResultsError(
            "where: leaves out the process 'discrete', which flows are measured against; "
            "choose flows with accuracy(..., flows=[...]) instead"
        )


def ended_runs(
    results: Tables, columns: Iterable[str]
) -> Iterator[tuple[Mapping[str, Any], Trace]]:
    """Stream the runs that have ended and have steps: each row of `runs` with its trace.

    Raises `ResultsError` if the results were loaded without the process `discrete`.
    """
    check_optimizer(results)
    runs = results.runs[results.runs["status"].astype("str") != "running"]
    rows: list[Any] = runs.to_dict("records")
    ended = {str(row["run_id"]): row for row in rows}
    for trace in results.traces(columns):
        if trace.run_id in ended:
            yield ended[trace.run_id], trace


def scored_frame(scored: pa.Table, results: Tables, scoring: Scoring) -> pd.DataFrame:
    """Frame of `accuracy` from a table of scored runs, with rows for what has no steps.

    So that a run without readable steps, or a flow without any, is counted all the same.
    """
    runs = results.runs[results.runs["status"].astype("str") != "running"]
    place = pd.Series(np.arange(len(runs)), index=runs["run_id"].astype("str").to_numpy())
    flow = scored["flow"].to_pylist()
    keep = np.array([name is not None for name in flow], dtype=bool)
    found = scored.filter(pa.array(keep))
    at = place.loc[scored["run_id"].to_pylist()].to_numpy()[keep]
    there = dict[int, set[str]]()
    for i, name in zip(at.tolist(), found["flow"].to_pylist(), strict=True):
        there.setdefault(i, set()).add(name)
    lost = [
        (i, name)
        for i, listed in enumerate(runs["flows"].astype("object").tolist())
        for name in sorted(_listed(listed, results, scoring) - there.get(i, set()))
    ]
    numbers = found.drop_columns(["run_id"]).to_pandas()
    if lost:
        empty = pd.DataFrame({"flow": [name for _, name in lost], "flow_status": "no_data"})
        numbers = pd.concat([numbers, empty], ignore_index=True) if len(numbers) else empty
    names = ["run_id", "sweep", *configuration_of(results.runs), "seed"]
    identity = without_attrs(runs[[*names, "status"]]).rename(columns={"status": "run_status"})
    identity = identity.take(np.append(at, [i for i, _ in lost]).astype(np.int64))
    for name in identity:
        identity[name] = _without_nulls(identity[name])
    whole = pd.concat([identity.reset_index(drop=True), numbers], axis=1)
    return accuracy_frame(whole, results.runs)


def _listed(listed: Any, results: Tables, scoring: Scoring) -> set[str]:
    """Flows that a run was configured with, of those that are scored."""
    processes = processes_of(results.runs)
    flows = {f for f in (str(listed).split(",") if pd.notna(listed) else []) if f}
    wanted = {f for f in flows if processes[f]["predicts"] and not results.leaves_out(f)}
    return wanted if scoring.flows is None else wanted.intersection(scoring.flows)


def _without_nulls(values: pd.Series) -> pd.Series:
    """Take integers and flags without nulls as such; with some, as objects."""
    plain = {"Int64": "int64", "boolean": "bool"}.get(str(values.dtype))
    if plain is None:
        return values
    if values.isna().any():
        return values.astype("object")
    return pd.Series(values.to_numpy(dtype=plain), values.index, name=values.name)


def accuracy_frame(
    rows: list[dict[str, Any]] | pd.DataFrame, runs: pd.DataFrame | None = None
) -> pd.DataFrame:
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
