"""Whether one flow is better than another, on the same runs: `compare`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.infer.cells import (
    as_names,
    cells,
    check_accuracy,
    check_by,
    keep_dtypes,
    panel_keys,
)
from analysis.infer.intervals import holm, median_interval, wilcoxon_p, wilson
from analysis.measure import find_metric

_COMPARISON = (
    "metric", "n", "wins", "ties", "win_rate", "win_low", "win_high", "median_ratio", "ratio_low",
    "ratio_high", "ratio_method", "p_value", "p_holm", "n_runs", "n_diverged", "n_failed",
    "n_undefined", "n_stopped", "n_flow_diverged",
)  # fmt: skip


def compare(
    accuracy: pd.DataFrame,
    first: str,
    second: str,
    by: str | Sequence[str] | None = None,
    metrics: str | Sequence[str] = ("final_distance",),
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare two flows on the same runs: one row per cell × metric.

    Args:
        accuracy: from `analysis.accuracy`.
        first: flow that is asked about, e.g. "central".
        second: flow that it is compared with, e.g. "stable".
        by: columns that make a cell, by default those of `panel_keys` (one cell per
            configuration, over seeds and learning rates); `[]` for one cell.
        metrics: errors to compare (smaller is better).
        seed: of the bootstrap.

    Returns columns `by`, `metric`; `n` pairs (finished runs where both errors are defined); `wins`
    (first smaller), `ties`; `win_rate` = wins / n with its 95% Wilson interval; `median_ratio` of
    first over second with a 95% bootstrap interval (none below n = 6); `p_value` of Wilcoxon's
    signed-rank test on the log ratios (on the differences, if an error is zero) and `p_holm`,
    corrected for all rows of this table; and counts of what is not in n: `n_diverged`, `n_failed`
    and `n_undefined` of the `n_runs` runs, `n_stopped` and `n_flow_diverged`, finished runs in
    which either flow stopped, or diverged (they are compared at their last steps, which favours the
    flow that ended).

    The p-values take runs as independent. Runs of one seed at several learning rates share their
    starting point, so treat p-values of cells that pool learning rates as optimistic.

    Raises `ValueError` for a flow, column or metric that does not exist, a metric that is no error,
    or a flow compared with itself.

    >>> frame = accuracy(load(example_sweep))
    >>> compare(frame, "central", "stable", by=["rule"])[["rule", "n", "wins", "median_ratio"]]
                   rule  n  wins  median_ratio
    0  gradient_descent  4     4          0.08
    1           rmsprop  2     2          0.08
    """
    wanted = _check(accuracy, (first, second), metrics)
    keys = panel_keys(accuracy) if by is None else check_by(accuracy, by)
    flow = accuracy["flow"].astype("str")
    pairs = accuracy[flow == first].merge(
        accuracy.loc[flow == second, ["run_id", "flow_status", *wanted]],
        on="run_id", suffixes=("", "_second"),
    )  # fmt: skip
    rows = [
        cell | {"metric": name} | _compare_cell(group, name, seed)
        for cell, group in cells(pairs, keys)
        for name in wanted
    ]
    frame = pd.DataFrame(rows, columns=[*keys, *_COMPARISON])
    frame["p_holm"] = holm(frame["p_value"].to_numpy(dtype=np.float64))
    frame.attrs = {}
    return keep_dtypes(frame, accuracy, keys)


def _check(accuracy: pd.DataFrame, flows: Sequence[str], metrics: str | Sequence[str]) -> list[str]:
    """Return the metrics as a list; raise `ValueError` for an unknown flow or no error metric."""
    check_accuracy(accuracy)
    known = sorted(accuracy["flow"].astype("str").unique())
    for name in flows:
        if name not in known:
            raise ValueError(f"no flow {name!r} in the results; there are {known}")
    if len(set(flows)) < len(flows):
        raise ValueError(f"compare: two different flows are needed, got {flows[0]!r} twice")
    wanted = as_names(metrics)
    for name in wanted:
        if not find_metric(name).is_error:
            raise ValueError(f"metrics: only errors can be compared, got {name!r}")
    return wanted


def _compare_cell(pairs: pd.DataFrame, name: str, seed: int) -> dict[str, Any]:
    status = pairs["run_status"].astype("str")
    finished = pairs[status == "finished"]
    a = finished[name].to_numpy(dtype=np.float64)
    b = finished[f"{name}_second"].to_numpy(dtype=np.float64)
    defined = np.isfinite(a) & np.isfinite(b)
    a, b = a[defined], b[defined]
    n, wins = len(a), int(np.sum(a < b))
    low, high = wilson(wins, n)
    endings = finished[["flow_status", "flow_status_second"]].astype("str")
    return {
        "n": n,
        "wins": wins,
        "ties": int(np.sum(a == b)),
        "win_rate": wins / n if n else np.nan,
        "win_low": low,
        "win_high": high,
        **_ratio(a, b, seed),
        "n_runs": len(pairs),
        "n_diverged": int((status == "diverged").sum()),
        "n_failed": int((status == "failed").sum()),
        "n_undefined": int(len(finished) - n),
        "n_stopped": int((endings == "stopped").any(axis=1).sum()),
        "n_flow_diverged": int((endings == "diverged").any(axis=1).sum()),
    }


def _ratio(a: np.ndarray, b: np.ndarray, seed: int) -> dict[str, Any]:
    """Median of a/b with its interval, and Wilcoxon's p-value."""
    if len(a) == 0:
        return {"median_ratio": np.nan, "ratio_method": "none", "p_value": np.nan}
    if np.all(a > 0) and np.all(b > 0):
        logs = np.log(a / b)
        found = median_interval(logs, seed=seed)
        return {
            "median_ratio": float(np.exp(np.median(logs))),
            "ratio_low": float(np.exp(found.low)),
            "ratio_high": float(np.exp(found.high)),
            "ratio_method": found.method,
            "p_value": wilcoxon_p(logs),
        }
    ratio = np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)
    found = median_interval(ratio, seed=seed)
    return {
        "median_ratio": float(np.median(ratio[np.isfinite(ratio)])) if (b > 0).any() else np.nan,
        "ratio_low": found.low,
        "ratio_high": found.high,
        "ratio_method": found.method,
        "p_value": wilcoxon_p(a - b),
    }
