"""Whether one flow is better than another, on the same runs: `compare`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.infer.cells import (
    as_names,
    cells,
    check_accuracy,
    check_by,
    keep_dtypes,
    panel_keys,
)
from analysis.infer.intervals import holm, median_interval, wilson
from analysis.infer.order import Scores, bounded_ratio, order, scores_of, signed_rank_p
from analysis.measure import find_metric

_COMPARISON = (
    "metric", "n", "wins", "ties", "win_rate", "win_low", "win_high", "median_ratio", "ratio_low",
    "ratio_high", "ratio_method", "p_value", "p_holm", "n_runs", "n_diverged", "n_failed",
    "n_undefined", "n_loss_undefined", "n_stopped", "n_flow_diverged",
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

    A flow that stopped or diverged is behind one that lasted, and of two that ended the one that
    ended first is behind: what it lost counts against it, however small its error was until then.

    Returns columns `by`, `metric`; `n` pairs (finished runs where both flows have an error or an
    early end); `wins` (first nearer), `ties` (equal to 1e-6); `win_rate` = (wins + ties/2) / n with
    its 95% Wilson interval; `median_ratio` of first over second with a 95% bootstrap interval (none
    below n = 6), a pair with one flow that ended counting as 1 at best for that one, one with an
    infinite error as infinite or 0 (a limit that would be infinite is NaN), two errors of zero as
    1; `p_value` of Wilcoxon's signed-rank test on the log ratios (on the differences, if an error
    is zero; pairs that an early end decided have the largest ranks) and `p_holm`, corrected for all
    rows of this table; and counts: `n_diverged`, `n_failed`, `n_loss_undefined` (its derivatives,
    at the start) and `n_undefined` (the metric) of the `n_runs` runs are not in n, `n_stopped` and
    `n_flow_diverged` are finished runs in which either flow ended.

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
        accuracy.loc[flow == second, ["run_id", "flow_status", "last_step", *wanted]],
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
    a, b = scores_of(finished, name), scores_of(finished, name, "_second")
    sign = order(a, b)
    n, wins, ties = (int(np.sum(found)) for found in (~np.isnan(sign), sign == -1, sign == 0))
    low, high = wilson(wins + ties / 2, n)
    endings = finished[["flow_status", "flow_status_second"]].astype("str")
    return {
        "n": n,
        "wins": wins,
        "ties": ties,
        "win_rate": (wins + ties / 2) / n if n else np.nan,
        "win_low": low,
        "win_high": high,
        **_ratio(a, b, sign, seed),
        "n_runs": len(pairs),
        "n_diverged": int((status == "diverged").sum()),
        "n_failed": int((status == "failed").sum()),
        "n_loss_undefined": int((status == "undefined").sum()),
        "n_undefined": int(len(finished) - n),
        "n_stopped": int((endings == "stopped").any(axis=1).sum()),
        "n_flow_diverged": int((endings == "diverged").any(axis=1).sum()),
    }


def _ratio(a: Scores, b: Scores, sign: NDArray[np.float64], seed: int) -> dict[str, Any]:
    """Median of a/b with its interval, and Wilcoxon's p-value."""
    both = ~np.isnan(a.error) & ~np.isnan(b.error)
    p_value = signed_rank_p(a, b, sign)
    if not both.any():
        return {"median_ratio": np.nan, "ratio_method": "none", "p_value": p_value}
    ratios = bounded_ratio(a, b)
    ratios = ratios[~np.isnan(ratios)]
    of_logs = np.all(a.error[both] > 0) and np.all(b.error[both] > 0)
    with np.errstate(divide="ignore", invalid="ignore"):  # infinite errors, and a median of 0 and ∞
        values = np.log(ratios) if of_logs else ratios
        found = median_interval(values, seed=seed)
        limits = np.array([np.median(values), found.low, found.high])
    middle, low, high = (float(value) for value in (np.exp(limits) if of_logs else limits))
    return {
        "median_ratio": middle,
        "ratio_low": low if np.isfinite(low) else np.nan,
        "ratio_high": high if np.isfinite(high) else np.nan,
        "ratio_method": found.method,
        "p_value": p_value,
    }
