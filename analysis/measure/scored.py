"""What is kept of a run once its steps have been read: a row of numbers per flow.

A table of scored runs has a row per run × flow: the columns of `accuracy` from `flow` on and, for a
study, of some runs (`is_sampled`), the smoothed metrics at further bandwidths, the points of
predicted and measured variance and the curve of the distance. A run without any flow to score has
one row, whose flow is null.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.measure.formulas import relative_distance
from analysis.measure.metric import Metric
from analysis.measure.metrics import all_metrics
from analysis.measure.scoring import score
from analysis.measure.side_by_side import Scoring
from analysis.measure.together import Together, together
from analysis.measure.variances import variance_points
from analysis.read import Trace, common_steps

CURVE_POINTS = 100  # of a run's distance curve: bounds memory, and a figure shows no more
POINTS = ("direction", "predicted", "measured")
CURVE = ("curve_step", "curve_distance")
_TYPES = {
    "direction": pa.list_(pa.int64()),
    "predicted": pa.list_(pa.float64()),
    "measured": pa.list_(pa.float64()),
    "curve_step": pa.list_(pa.int64()),
    "curve_distance": pa.list_(pa.float32()),
}


@dataclass(frozen=True)
class Plan:
    """What is computed of every run: all metrics, and what a study has beside them.

    Attributes:
        scoring: bandwidth, tolerance and flows.
        others: further bandwidths (steps) of the smoothed metrics.
        for_study: whether points and curves are kept.
    """

    scoring: Scoring
    others: tuple[float, ...] = ()
    for_study: bool = False

    @property
    def schema(self) -> pa.Schema:
        """Of a table of scored runs."""
        metrics = all_metrics()
        flags = {f"{m.name}_observed" for m in metrics if m.censored}
        fields = {"run_id": pa.string(), "flow": pa.string(), "flow_status": pa.string()}
        fields["last_step"] = pa.float64()
        for name in (name for m in metrics for name in m.columns):
            fields[name] = pa.bool_() if name in flags else pa.float64()
        if self.for_study:
            smoothed = [m for m in metrics if m.smoothed]
            fields |= {at(m, b): pa.float64() for m in smoothed for b in self.others}
            fields |= _TYPES | {"is_sampled": pa.bool_()}
        return pa.schema(fields)


def at(metric: Metric, bandwidth: float) -> str:
    """Name the column of a smoothed metric at a further bandwidth.

    >>> at(all_metrics()[0], 10.0)
    'final_distance@10'
    """
    return f"{metric.name}@{bandwidth:g}"


def score_runs(traces: Iterable[Trace], plan: Plan, sampled: Collection[str]) -> pa.Table:
    """Score runs: a table of scored runs, of `plan.schema`.

    `sampled`: runs that get what a study has beside the metrics; of the others it is null.
    """
    schema = plan.schema
    metrics = all_metrics()
    rows = [
        {"run_id": trace.run_id, "is_sampled": trace.run_id in sampled} | row
        for trace, among in together(traces)
        for row in _rows(trace, among, plan, metrics, trace.run_id in sampled)
    ]
    columns = []
    for field in schema:
        missing = np.nan if pa.types.is_floating(field.type) else None
        columns.append(pa.array([row.get(field.name, missing) for row in rows], field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _rows(
    trace: Trace, among: Together, plan: Plan, metrics: Sequence[Metric], is_sampled: bool
) -> Iterator[dict[str, Any]]:
    rows = list(score(trace, plan.scoring, metrics, among))
    if not rows:
        yield {}
        return
    if not (plan.for_study and is_sampled):
        yield from rows
        return
    more: dict[str, dict[str, Any]] = {str(row["flow"]): {} for row in rows}
    smoothed = [m for m in metrics if m.smoothed]
    for bandwidth in plan.others:
        for row in score(trace, Scoring(bandwidth=bandwidth), smoothed, among):
            values = {at(m, bandwidth): row[m.name] for m in smoothed}
            more.setdefault(str(row["flow"]), {}).update(values)
    for point in variance_points(trace, plan.scoring.bandwidth, among):
        mine = more[str(point["flow"])]
        for name in POINTS:
            mine.setdefault(name, []).append(point[name])
    for flow, step, distance in distance_curves(trace):
        more[flow] |= {"curve_step": step, "curve_distance": distance}
    for row in rows:
        yield row | more[str(row["flow"])]


def distance_curves(trace: Trace) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Relative distance of each flow over time, thinned: flow, steps, distances (float32)."""
    optimizer = trace.scored("discrete")
    every = max(1, -(-len(optimizer["step"]) // CURVE_POINTS))
    for flow in trace.flows:
        columns = trace.scored(flow)
        step, here, there = common_steps(columns["step"], optimizer["step"])
        relative = relative_distance(
            columns["distance_to_discrete"][here], optimizer["distance_from_start"][there]
        )
        yield flow, step[::every], relative[::every].astype(np.float32)
