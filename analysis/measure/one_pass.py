"""Everything that the report shows, gathered in one pass over the steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.measure.accuracy import sensitivity_rows, sensitivity_table
from analysis.measure.formulas import DEFAULT_TOLERANCE, relative_distance
from analysis.measure.scoring import (
    accuracy_frame,
    columns_read,
    ended_runs,
    run_rows,
    score,
)
from analysis.measure.side_by_side import Scoring
from analysis.measure.smoothing import DEFAULT_BANDWIDTH
from analysis.measure.variances import VARIANCE_COLUMNS, points_frame, variance_points
from analysis.read import Results, Source, Trace, common_steps, declare_like, opened

CURVE_POINTS = 200  # of a run's distance curve: bounds memory, and a figure shows no more


@dataclass(frozen=True, eq=False)
class Study:
    """What one pass over a results folder yields.

    Attributes:
        results: the folder.
        accuracy: as from `analysis.accuracy`.
        sensitivity: as from `analysis.bandwidth_sensitivity`, at half, once and twice the
            bandwidth.
        points: as from `analysis.covariance_points`.
        curves: relative distance over time of finished runs, at most 200 steps each: columns
            `run_id`, `workload`, `criterion`, `rule`, `lr`, `seed`, `flow`, `step`, `distance`.
        bandwidth: of the time average, in steps.
        tolerance: of the prediction horizon.
    """

    results: Results
    accuracy: pd.DataFrame
    sensitivity: pd.DataFrame
    points: pd.DataFrame
    curves: pd.DataFrame
    bandwidth: float
    tolerance: float


def study(
    results: Source,
    *,
    bandwidth: float = DEFAULT_BANDWIDTH,
    tolerance: float = DEFAULT_TOLERANCE,
) -> Study:
    """Stream the steps once and gather every table and curve of the report.

    `results` is from `load`, or the path of a folder. Holds one run's steps at a time, and per run
    a few hundred numbers. Raises `ResultsError` if the results were loaded without the process
    `discrete`.

    >>> found = study(load(example_sweep))
    >>> len(found.accuracy), sorted(found.curves["flow"].unique())
    (12, ['central', 'stable'])
    """
    scoring = Scoring(bandwidth, tolerance)
    results = opened(results)
    others = [bandwidth / 2, bandwidth * 2]
    rows: list[dict[str, Any]] = []
    sensitivity: list[dict[str, Any]] = []
    points: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for run, trace in ended_runs(results, _columns(results)):
        scored = list(score(trace, scoring)) if trace is not None else []
        rows += run_rows(run, scored, results, scoring)
        if trace is not None and run["status"] == "finished":
            sensitivity += [row | {"bandwidth": bandwidth} for row in scored]
            sensitivity += sensitivity_rows(trace, others)
            points += variance_points(trace, bandwidth)
            curves += distance_curves(trace)
    return Study(
        results=results,
        accuracy=accuracy_frame(rows, results.runs),
        sensitivity=sensitivity_table(sensitivity),
        points=points_frame(points, results.runs),
        curves=_curves_frame(curves, results.runs),
        bandwidth=bandwidth,
        tolerance=tolerance,
    )


def _columns(results: Results) -> list[str]:
    """Columns of `steps` that metrics, points and curves read."""
    own = {*VARIANCE_COLUMNS, "distance_to_discrete", "distance_from_start"}
    return list(dict.fromkeys([*columns_read(results), *sorted(own)]))


def distance_curves(trace: Trace) -> list[dict[str, Any]]:
    """Relative distance of each flow over time, thinned: `run_id`, `flow`, `step`, `distance`."""
    optimizer = trace.scored("discrete") if "discrete" in trace.processes else None
    parts: list[dict[str, Any]] = []
    for flow in trace.flows if optimizer is not None else []:
        assert optimizer is not None  # for the type checker
        columns = trace.scored(flow)
        step, here, there = common_steps(columns["step"], optimizer["step"])
        relative = relative_distance(
            columns["distance_to_discrete"][here], optimizer["distance_from_start"][there]
        )
        every = max(1, -(-len(optimizer["step"]) // CURVE_POINTS))
        parts.append(
            {
                "run_id": trace.run_id,
                "flow": flow,
                # Copies: a view would keep the whole series in memory.
                "step": step[::every].copy(),
                "distance": relative[::every].copy(),
            }
        )
    return parts


def _curves_frame(curves: list[dict[str, Any]], runs: pd.DataFrame) -> pd.DataFrame:
    names = ["run_id", "workload", "criterion", "rule", "lr", "seed"]
    if not curves:
        return pd.DataFrame(columns=[*names, "flow", "step", "distance"])
    lengths = [len(c["step"]) for c in curves]
    long = pd.DataFrame(
        {
            "run_id": np.repeat([c["run_id"] for c in curves], lengths),
            "flow": np.repeat([c["flow"] for c in curves], lengths),
            "step": np.concatenate([c["step"] for c in curves]),
            "distance": np.concatenate([c["distance"] for c in curves]),
        }
    )
    frame = runs[names].merge(long, on="run_id", how="right")
    frame.attrs = {"units": {"step": "steps", "distance": ""}}
    return declare_like(frame, runs)
