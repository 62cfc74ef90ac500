"""Everything that the report shows, gathered in one pass over the steps."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from analysis.measure.accuracy import sensitivity_table, smoothed_metrics
from analysis.measure.formulas import DEFAULT_TOLERANCE
from analysis.measure.many_runs import scored_tables
from analysis.measure.scored import CURVE, POINTS, Plan, at
from analysis.measure.scoring import columns_read, scored_frame
from analysis.measure.side_by_side import Scoring
from analysis.measure.smoothing import DEFAULT_BANDWIDTH
from analysis.measure.variances import VARIANCE_COLUMNS, points_frame
from analysis.read import Results, Source, declare_like, opened

SAMPLED_RUNS = 2_000
"""Finished runs of which a study has curves, points and other bandwidths: of more, a sample."""


@dataclass(frozen=True, eq=False)
class Study:
    """What one pass over a results folder yields.

    Attributes:
        results: the folder.
        accuracy: as from `analysis.accuracy`.
        sensitivity: as from `analysis.bandwidth_sensitivity`, at half, once and twice the
            bandwidth.
        points: as from `analysis.covariance_points`.
        curves: relative distance over time of finished runs, at most 100 steps each: columns
            `run_id`, `workload`, `criterion`, `rule`, `lr`, `seed`, `flow`, `step`, `distance`.
        bandwidth: of the time average, in steps.
        tolerance: of the prediction horizon.

    Of more than 2,000 finished runs, `sensitivity`, `points` and `curves` are of a random sample.
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
    workers: int | None = 1,
    cache: bool = False,
) -> Study:
    """Stream the steps once and gather every table and curve of the report.

    Args:
        results: from `load`, or the path of a folder.
        bandwidth: of the Gaussian time average, in steps.
        tolerance: relative distance at which a prediction counts as lost.
        workers: processes to score runs in, None for one a core; small studies take one anyway.
            With more, a script must call this under `if __name__ == "__main__":`, because they
            begin by importing it.
        cache: keep the scores of runs in the folder `analysis` of each sweep, and take those that
            are there: an interrupted study goes on, a later one reads only new runs.

    Holds a few batches of runs' steps at a time, and per run and flow some fifty numbers. Raises
    `ResultsError` if the results were loaded without the process `discrete`.

    >>> found = study(load(example_sweep))
    >>> len(found.accuracy), sorted(found.curves["flow"].unique())
    (12, ['central', 'stable'])
    """
    results = opened(results)
    plan = Plan(Scoring(bandwidth, tolerance), (bandwidth / 2, bandwidth * 2), for_study=True)
    is_finished = results.runs["status"].astype("str") == "finished"
    sampled = _sample(results.runs.loc[is_finished, "run_id"].astype("str"))
    means = _Means(plan)
    numbers, points, curves = [], [], []
    others = {at(m, b) for m in smoothed_metrics() for b in plan.others}
    beside = {*POINTS, *CURVE, *others, "is_sampled"}
    plain = [name for name in plan.schema.names if name not in beside]
    for table in scored_tables(
        results, plan, _columns(results), sampled=sampled, workers=workers, cache=cache
    ):
        numbers.append(table.select(plain))
        few = table.filter(pc.is_in(table["run_id"], pa.array(sampled, pa.string())))
        means.add(few)
        points.append(_long(few, POINTS))
        curves.append(_long(few, CURVE))
    scored = pa.concat_tables([plan.schema.empty_table().select(plain), *numbers])
    return Study(
        results=results,
        accuracy=scored_frame(scored, results, plan.scoring),
        sensitivity=sensitivity_table(means.rows()),
        points=points_frame(_together(points, POINTS, results), results.runs),
        curves=_curves_frame(_together(curves, CURVE, results), results.runs),
        bandwidth=bandwidth,
        tolerance=tolerance,
    )


def _columns(results: Results) -> list[str]:
    """Columns of `steps` that metrics, points and curves read."""
    own = {*VARIANCE_COLUMNS, "distance_to_discrete", "distance_from_start"}
    return list(dict.fromkeys([*columns_read(results), *sorted(own)]))


def _sample(run_ids: Iterable[str]) -> list[str]:
    """At most so many of some runs, by a hash of their ids.

    Of more runs later, those that leave the sample make room for new ones: nothing that was read
    need be read again.
    """
    return _shuffled(run_ids)[:SAMPLED_RUNS]


def some_runs(results: Results, most: int) -> Results:
    """Keep at most so many finished runs of each workload, criterion and rule, by a hash.

    For what reads steps again: its time and memory then do not grow with the runs of a cell.

    >>> len(some_runs(load(example_sweep), 1).runs)
    2
    """
    finished = results.runs[results.runs["status"].astype("str") == "finished"]
    run_ids = finished["run_id"].astype("str")
    cells = run_ids.groupby(
        [finished[name].astype("str") for name in ("workload", "criterion", "rule")]
    )
    kept = {run_id for _, mine in cells for run_id in _shuffled(mine)[:most]}
    runs = finished[run_ids.isin(kept)]
    return replace(results, runs=runs.reset_index(drop=True))


def _shuffled(run_ids: Iterable[str]) -> list[str]:
    return sorted(run_ids, key=lambda run_id: (zlib.crc32(run_id.encode()), run_id))


class _Means:
    """Means of the smoothed metrics over runs, by flow and bandwidth, as the runs come."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._sums: dict[tuple[str, float], dict[str, np.ndarray]] = {}

    def add(self, scored: pa.Table) -> None:
        """Take in runs."""
        for flow in scored["flow"].unique().drop_null().to_pylist():
            rows = scored.filter(pc.equal(scored["flow"], flow))
            once = self._plan.scoring.bandwidth
            for bandwidth in (once, *self._plan.others):
                sums = self._sums.setdefault((flow, bandwidth), {})
                for m in smoothed_metrics():
                    name = m.name if bandwidth == once else at(m, bandwidth)
                    values = rows[name].to_numpy()
                    values = values[~np.isnan(values)]
                    sums[m.name] = sums.get(m.name, 0) + np.array([values.sum(), len(values)])

    def rows(self) -> list[dict[str, Any]]:
        """One row per flow and bandwidth, with the mean of each metric."""
        return [
            {"flow": flow, "bandwidth": float(bandwidth)}
            | {name: total / n if n else np.nan for name, (total, n) in sums.items()}
            for (flow, bandwidth), sums in self._sums.items()
        ]


def _long(scored: pa.Table, names: Sequence[str]) -> pa.Table:
    """Turn lists of runs into rows: `run_id`, `flow` and a column for each list."""
    rows = scored.combine_chunks()
    parents = pc.list_parent_indices(rows[names[0]])
    columns = {name: rows[name].take(parents) for name in ("run_id", "flow")}
    return pa.table(columns | {name: pc.list_flatten(rows[name]) for name in names})


def _together(tables: Sequence[pa.Table], names: Collection[str], results: Results) -> pd.DataFrame:
    """One frame of `_long`, in the order of the table `runs`, whichever was read first."""
    if not tables:
        return pd.DataFrame(columns=["run_id", "flow", *names])
    frame = pa.concat_tables(tables).to_pandas()
    order: Mapping[str, int] = {r: i for i, r in enumerate(results.runs["run_id"].astype("str"))}
    return frame.sort_values("run_id", key=lambda c: c.map(order), kind="stable", ignore_index=True)


def _curves_frame(curves: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    names = ["run_id", "workload", "criterion", "rule", "lr", "seed"]
    long = curves.rename(columns={"curve_step": "step", "curve_distance": "distance"})
    if long.empty:
        return pd.DataFrame(columns=[*names, "flow", "step", "distance"])
    long["distance"] = long["distance"].astype("float64")
    frame = runs[names].merge(long, on="run_id", how="right")
    frame.attrs = {"units": {"step": "steps", "distance": ""}}
    return declare_like(frame, runs)
