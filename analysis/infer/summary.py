"""Statistics over seeds, learning rates and workloads: `summarize`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.infer.cells import (
    as_names,
    cell_keys,
    cells,
    check_accuracy,
    check_by,
    check_frame,
    keep_dtypes,
)
from analysis.infer.intervals import mean_interval
from analysis.infer.survival import median_horizon
from analysis.measure import Metric, all_metrics, find_metric, is_doubtful
from analysis.read import ENDED

DEFAULT_SEED = 0  # of the bootstrap
_STATISTICS = (
    "n", "mean", "median", "sd", "q25", "q75", "ci_low", "ci_high", "ci_method",
    "n_runs", "n_diverged", "n_failed", "n_loss_undefined", "n_stopped", "n_flow_diverged",
    "n_doubtful", "n_censored",
)  # fmt: skip


def summarize(
    accuracy: pd.DataFrame,
    by: str | Sequence[str] | None = None,
    metrics: str | Sequence[str] | None = None,
    *,
    seed: int = DEFAULT_SEED,
) -> pd.DataFrame:
    """Statistics of each metric over the runs of each cell: one row per cell × flow × metric.

    Args:
        accuracy: from `analysis.accuracy`.
        by: columns that make a cell; by default those of `cell_keys` (one cell per configuration,
            over seeds). Fewer columns pool over learning rates or workloads.
        metrics: which; by default all that the frame has.
        seed: of the bootstrap.

    Returns columns `by`, `flow`, `metric`, `unit`; `n` (runs the statistics are of: finished, and
    the metric defined), `mean`, `median`, `sd`, `q25`, `q75`, `ci_low`, `ci_high` (95%, of the
    mean, within what the metric can be) and `ci_method` (see `intervals.mean_interval`;
    `kaplan-meier` of horizons); and the counts `n_runs`, `n_diverged`, `n_failed`,
    `n_loss_undefined` (of the runs), `n_stopped`, `n_flow_diverged` and `n_doubtful` (of the flow;
    the last of finished runs, by `is_doubtful`).
    Diverged and failed runs, and those of a loss without derivatives at the start, are counted but
    not averaged; how flows ended in the latter is no failure of theirs and not counted. Of errors,
    `n_censored` counts finished runs in which the flow ended first: its last error stands for the
    steps that it lost, so that the mean is a lower bound. Of horizons, `median` and its limits are
    Kaplan-Meier's, `n_censored` counts runs that ended first, and what censoring leaves undefined
    (mean, sd, quartiles) is NaN.

    Raises `ValueError` for a column or metric that does not exist, or another kind of frame.

    >>> frame = accuracy(load(example_sweep))
    >>> table = summarize(frame, by=["rule"], metrics=["final_distance"])
    >>> table[["rule", "flow", "n", "mean"]].round(3)
                   rule     flow  n   mean
    0  gradient_descent  central  4  0.030
    1  gradient_descent   stable  4  0.375
    2           rmsprop  central  2  0.030
    3           rmsprop   stable  2  0.375
    """
    check_accuracy(accuracy)
    known = [m.name for m in all_metrics() if m.name in accuracy]
    wanted = [find_metric(name) for name in as_names(known if metrics is None else metrics)]
    check_frame(accuracy, [m.name for m in wanted], "analysis.accuracy")
    keys = cell_keys(accuracy) if by is None else check_by(accuracy, by)
    # Columns as arrays, taken once: frames of single cells would cost more than their statistics.
    run_status = accuracy["run_status"].to_numpy(dtype=object)
    flow_status = accuracy["flow_status"].to_numpy(dtype=object)
    doubtful = is_doubtful(accuracy).to_numpy()
    values = {m.name: accuracy[m.name].to_numpy(dtype=np.float64) for m in wanted}
    observed = {m.name: _observed(accuracy, m.name) for m in wanted if m.censored}
    rows = []
    for cell, group in cells(accuracy[[*keys, "flow"]].reset_index(drop=True), [*keys, "flow"]):
        here = group.index.to_numpy()
        finished = here[run_status[here] == "finished"]
        counts = _counts(run_status[here], flow_status[here])
        counts["n_doubtful"] = int(doubtful[finished].sum())
        lost = int(np.isin(flow_status[finished], ENDED).sum())
        for m in wanted:
            data = values[m.name][finished]
            statistics = (
                _horizon_statistics(data, observed[m.name][finished])
                if m.censored
                else _statistics(data, seed, m) | ({"n_censored": lost} if m.is_error else {})
            )
            rows.append(cell | {"metric": m.name, "unit": m.unit} | statistics | counts)
    frame = pd.DataFrame(rows, columns=[*keys, "flow", "metric", "unit", *_STATISTICS])
    frame["n_censored"] = frame["n_censored"].astype("Int64")
    return keep_dtypes(frame, accuracy, [*keys, "flow"])


def _observed(accuracy: pd.DataFrame, name: str) -> np.ndarray:
    """Whether each horizon was reached; null counts as no."""
    return accuracy[f"{name}_observed"].fillna(False).to_numpy(dtype=bool)


def _counts(run_status: np.ndarray, flow_status: np.ndarray) -> dict[str, int]:
    flow_status = flow_status[run_status != "undefined"]
    return {
        "n_runs": len(run_status),
        "n_diverged": int(np.sum(run_status == "diverged")),
        "n_failed": int(np.sum(run_status == "failed")),
        "n_loss_undefined": int(np.sum(run_status == "undefined")),
        "n_stopped": int(np.sum(flow_status == "stopped")),
        "n_flow_diverged": int(np.sum(flow_status == "diverged")),
    }


def _statistics(values: np.ndarray, seed: int, metric: Metric) -> dict[str, Any]:
    data = values[~np.isnan(values)]
    if len(data) == 0:
        return {"n": 0, "ci_method": "none"}
    if np.isinf(data).any():  # of an impossible prediction; to leave it out would flatter the flow
        middle = float(np.median(data))
        return {"n": len(data), "mean": np.inf, "median": middle, "ci_method": "none"}
    low, high, method = mean_interval(data, seed=seed)
    # No mean is outside what single values can be: cutting there loses no coverage.
    low, high = metric.within_bounds(low), metric.within_bounds(high)
    q25, median, q75 = np.quantile(data, [0.25, 0.5, 0.75])
    return {
        "n": len(data),
        "mean": float(data.mean()),
        "median": float(median),
        "sd": float(data.std(ddof=1)) if len(data) > 1 else np.nan,
        "q25": float(q25),
        "q75": float(q75),
        "ci_low": low,
        "ci_high": high,
        "ci_method": method,
    }


def _horizon_statistics(horizon: np.ndarray, observed: np.ndarray) -> dict[str, Any]:
    known = np.isfinite(horizon)
    median, low, high = median_horizon(horizon[known], observed[known])
    return {
        "n": int(known.sum()),
        "median": median,
        "ci_low": low,
        "ci_high": high,
        "ci_method": "kaplan-meier" if known.sum() > 1 else "none",
        "n_censored": int(np.sum(known & ~observed)),
    }
