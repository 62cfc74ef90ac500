"""Over seeds, learning rates and workloads: `summarize` and the cells that it makes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.columns import CONFIGURATION, HORIZONS, KEYS, METRICS, metric
from analysis.intervals import mean_interval
from analysis.survival import median_horizon

DEFAULT_METRICS = tuple(m.name for m in METRICS)
_STATISTICS = (
    "n", "mean", "median", "sd", "q25", "q75", "ci_low", "ci_high", "ci_method",
    "n_runs", "n_diverged", "n_failed", "n_stopped", "n_flow_diverged", "n_censored",
)  # fmt: skip


def cell_keys(accuracy: pd.DataFrame) -> list[str]:
    """Columns that make a cell of runs differing in their seed only.

    Workload, criterion, rule and learning rate, and whatever else varies in this frame within
    them: runs with another `beta2` or number of substeps are never pooled by accident.
    """
    base = [k for k in KEYS if k != "workload_options"]
    accuracy = without_attrs(accuracy)
    cell = accuracy.groupby(base, observed=True, dropna=False).ngroup()
    others = [c for c in CONFIGURATION if c not in base and c in accuracy]
    varying = []
    for name in others:
        # As text, because the columns mix types and nulls; nulls get the code -1, like a value.
        value = pd.Series(pd.factorize(accuracy[name].astype("str"))[0], index=accuracy.index)
        if len(pd.DataFrame({"cell": cell, "value": value}).drop_duplicates()) > cell.nunique():
            varying.append(name)
    return [*base, *varying]


def panel_keys(frame: pd.DataFrame) -> list[str]:
    """Columns that make a cell of runs differing in their seed and learning rate only.

    `frame`: from `analysis.accuracy`, or any other with the configuration of its runs.

    >>> panel_keys(accuracy(load(example_sweep)))
    ['workload', 'criterion', 'rule']
    """
    return [key for key in cell_keys(frame) if key != "lr"]


def summarize(
    accuracy: pd.DataFrame,
    by: str | Sequence[str] | None = None,
    metrics: str | Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Statistics of each metric over the runs of each cell: one row per cell × flow × metric.

    Args:
        accuracy: from `analysis.accuracy`.
        by: columns that make a cell; by default those of `cell_keys` (one cell per configuration,
            over seeds). Fewer columns pool over learning rates or workloads.
        metrics: which; by default all.
        seed: of the bootstrap.

    Returns columns `by`, `flow`, `metric`, `unit`; `n` (runs the statistics are of: finished, and
    the metric defined), `mean`, `median`, `sd`, `q25`, `q75`, `ci_low`, `ci_high` (95%, of the
    mean) and `ci_method` (`bca`, `t`, `exact`, `none`; see `intervals.mean_interval`); and the
    counts `n_runs`, `n_diverged`, `n_failed` (of the runs), `n_stopped` and `n_flow_diverged` (of
    the flow). Diverged and failed runs are counted but not averaged. Of horizons, `median` and its
    limits are Kaplan-Meier's, `n_censored` counts runs that ended first, and what censoring leaves
    undefined (mean, sd, quartiles) is NaN.

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
    wanted = [metric(name) for name in as_names(DEFAULT_METRICS if metrics is None else metrics)]
    keys = cell_keys(accuracy) if by is None else check_by(accuracy, by)
    # Columns as arrays, taken once: frames of single cells would cost more than their statistics.
    run_status = accuracy["run_status"].to_numpy(dtype=object)
    flow_status = accuracy["flow_status"].to_numpy(dtype=object)
    values = {m.name: accuracy[m.name].to_numpy(dtype=np.float64) for m in wanted}
    observed = {name: _observed(accuracy, name) for name in HORIZONS if name in values}
    rows = []
    for cell, group in cells(accuracy[[*keys, "flow"]].reset_index(drop=True), [*keys, "flow"]):
        here = group.index.to_numpy()
        counts = _counts(run_status[here], flow_status[here])
        finished = here[run_status[here] == "finished"]
        for m in wanted:
            data = values[m.name][finished]
            statistics = (
                _horizon_statistics(data, observed[m.name][finished])
                if m.name in HORIZONS
                else _statistics(data, seed, non_negative=m.is_error)
            )
            rows.append(cell | {"metric": m.name, "unit": m.unit} | statistics | counts)
    frame = pd.DataFrame(rows, columns=[*keys, "flow", "metric", "unit", *_STATISTICS])
    frame["n_censored"] = frame["n_censored"].astype("Int64")
    return keep_dtypes(frame, accuracy, [*keys, "flow"])


def cells(frame: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Iterate over a frame's groups in key order, with the keys as a dict; null is a key too."""
    frame = without_attrs(frame)
    if not by:
        yield {}, frame
        return
    for key, group in frame.groupby(list(by), observed=True, dropna=False, sort=True):
        yield dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True)), group


def without_attrs(frame: pd.DataFrame) -> pd.DataFrame:
    """Take the same columns without metadata, for the middle of a computation.

    pandas deep-copies `attrs` in every operation, which cost a tenth of the report's time.
    """
    bare = frame.copy(deep=False)
    bare.attrs = {}
    return bare


def check_by(frame: pd.DataFrame, by: str | Sequence[str]) -> list[str]:
    """`by` as a list of existing columns. Raises `ValueError` naming the first that is not."""
    names = as_names(by)
    for name in names:
        if name not in frame or name == "flow":
            raise ValueError(f"by: no column {name!r} to group by; e.g. {list(KEYS)}")
    return names


def as_names(given: str | Sequence[str]) -> list[str]:
    """List of names, of which a single one may be given as it is."""
    return [given] if isinstance(given, str) else list(given)


def check_accuracy(frame: pd.DataFrame) -> None:
    """Raise `ValueError` unless this is a frame of `analysis.accuracy`."""
    check_frame(frame, ("run_id", "flow", "run_status", "flow_status"), "analysis.accuracy")


def check_frame(frame: pd.DataFrame, columns: Sequence[str], source: str) -> None:
    """Raise `ValueError` unless this is a frame with the columns that `source` gives it."""
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(f"give the frame that {source} returns, got {type(frame).__name__}")
    lacking = [name for name in columns if name not in frame]
    if lacking:
        raise ValueError(f"give the frame that {source} returns; this one lacks {lacking}")


def keep_dtypes(frame: pd.DataFrame, source: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Give key columns back the (categorical) types that they had."""
    for name in columns:
        if name in frame and name in source:
            frame[name] = frame[name].astype(source[name].dtype)
    frame.attrs = {"units": dict(source.attrs.get("units", {}))}
    return frame


def _observed(accuracy: pd.DataFrame, name: str) -> np.ndarray:
    """Whether each horizon was reached; null counts as no."""
    return accuracy[f"{name}_observed"].fillna(False).to_numpy(dtype=bool)


def _counts(run_status: np.ndarray, flow_status: np.ndarray) -> dict[str, int]:
    return {
        "n_runs": len(run_status),
        "n_diverged": int(np.sum(run_status == "diverged")),
        "n_failed": int(np.sum(run_status == "failed")),
        "n_stopped": int(np.sum(flow_status == "stopped")),
        "n_flow_diverged": int(np.sum(flow_status == "diverged")),
    }


def _statistics(values: np.ndarray, seed: int, *, non_negative: bool) -> dict[str, Any]:
    data = values[np.isfinite(values)]
    if len(data) == 0:
        return {"n": 0, "ci_method": "none"}
    low, high, method = mean_interval(data, seed=seed)
    if non_negative:
        low = max(low, 0.0)  # an error cannot be negative: cutting there loses no coverage
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
