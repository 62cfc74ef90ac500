"""How accurately each flow predicted each run: `accuracy`, and what the bandwidth does to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.measure.formulas import DEFAULT_TOLERANCE
from analysis.measure.frames import Frames, tables_of
from analysis.measure.many_runs import scored_tables
from analysis.measure.metric import Metric
from analysis.measure.metrics import all_metrics
from analysis.measure.scored import Plan, score_runs
from analysis.measure.scoring import columns_read, ended_runs, score, scored_frame
from analysis.measure.side_by_side import Scoring
from analysis.measure.smoothing import DEFAULT_BANDWIDTH
from analysis.read import Results, Source, Trace


def accuracy(
    results: Source | Frames,
    *,
    bandwidth: float = DEFAULT_BANDWIDTH,
    tolerance: float = DEFAULT_TOLERANCE,
    flows: Sequence[str] | None = None,
) -> pd.DataFrame:
    """How accurately each flow predicted each run: one row per run × flow.

    Runs are streamed, so memory does not grow with the sweep. The columns are the run's
    configuration, `flow`, `run_status`, `flow_status` (`ok`, `stopped`, `diverged`, `no_data`),
    `last_step` (last step that the flow was scored at), and every metric (units in
    `frame.attrs["units"]`), after a horizon whether it was observed (`horizon_observed`, ...;
    false: censored). Undefined metrics are NaN.

    Args:
        results: from `load`, or the path of a folder (runs that are still running are left out); or
            frames `run_paired(...).steps`: one, a list of one configuration, or either by label.
        bandwidth: of the Gaussian time average, in steps.
        tolerance: relative distance at which a prediction counts as lost.
        flows: processes to score; by default all that predict.

    A run that diverged is scored up to there, without the last row. A flow that ended before its
    run is scored over the same steps as those that lasted: on those that it lost, its last error
    counts, so that its value is a lower bound. A run or a flow without readable steps gets its rows
    with NaN metrics and `flow_status` `no_data`.

    Raises `ResultsError` if the results were loaded without the process `discrete`.

    >>> frame = accuracy(load(example_sweep))
    >>> frame.query("rule == 'rmsprop' and seed == 0")[["flow", "final_distance"]].round(3)
           flow  final_distance
    8   central            0.02
    9    stable            0.25
    """
    scoring = Scoring(bandwidth, tolerance, None if flows is None else tuple(flows))
    tables, plan = tables_of(results), Plan(scoring)
    columns = columns_read(tables)
    if isinstance(tables, Results):
        found = list(scored_tables(tables, plan, columns))
    else:
        found = [score_runs(tables.traces(columns), plan, ())]
    scored = pa.concat_tables([plan.schema.empty_table(), *found])
    return scored_frame(scored, tables, scoring)


def bandwidth_sensitivity(
    results: Source | Frames, bandwidths: Sequence[float] = (10.0, 20.0, 40.0)
) -> pd.DataFrame:
    """How much every smoothed metric depends on the bandwidth: mean over finished runs.

    One row per flow × metric, one column per bandwidth (steps), and `spread`: the largest over the
    smallest of them, minus 1.

    >>> table = bandwidth_sensitivity(load(example_sweep), bandwidths=(5, 10))
    >>> bool(table.loc[("central", "log_loss_error"), "spread"] < 0.01)
    True
    """
    tables = tables_of(results)
    rows: list[dict[str, Any]] = []
    for run, trace in ended_runs(tables, columns_read(tables, smoothed_metrics())):
        if run["status"] == "finished":
            rows += sensitivity_rows(trace, bandwidths)
    return sensitivity_table(rows)


def smoothed_metrics() -> list[Metric]:
    """All metrics that depend on the time average's bandwidth.

    >>> "nu_error" in [m.name for m in smoothed_metrics()]
    False
    """
    return [m for m in all_metrics() if m.smoothed]


def sensitivity_rows(trace: Trace, bandwidths: Sequence[float]) -> list[dict[str, Any]]:
    """Score one run at several bandwidths: rows of flow, bandwidth and the smoothed metrics."""
    return [
        row | {"bandwidth": float(b)}
        for b in bandwidths
        for row in score(trace, Scoring(bandwidth=b), smoothed_metrics())
    ]


def sensitivity_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Table of `bandwidth_sensitivity` from the rows of `sensitivity_rows`, or their means."""
    smoothed = smoothed_metrics()
    frame = pd.DataFrame(rows, columns=["flow", "bandwidth", *(m.name for m in smoothed)])
    long = frame.melt(["flow", "bandwidth"], var_name="metric").dropna(subset="value")
    table = long.pivot_table(index=["flow", "metric"], columns="bandwidth", values="value")
    if len(table.columns):
        low, high = table.min(axis=1), table.max(axis=1)
        table["spread"] = np.where(low > 0, high / low.where(low > 0) - 1, np.nan)
    table.attrs["units"] = {m.name: m.unit for m in smoothed}
    return table
