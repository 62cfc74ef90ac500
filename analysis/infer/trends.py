"""How accuracy depends on a hyperparameter: `trends`, and `lr_trend` for the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.infer.cells import as_names, cells, check_accuracy, check_by, keep_dtypes, panel_keys
from analysis.infer.intervals import holm, trend
from analysis.measure import find_metric


def trends(
    accuracy: pd.DataFrame,
    x: str,
    metrics: str | Sequence[str] = ("final_distance", "log_loss_error"),
    by: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """How errors depend on a hyperparameter: one row per cell × flow × metric.

    Args:
        accuracy: from `analysis.accuracy`.
        x: a numeric column of it, e.g. "beta2".
        metrics: which.
        by: columns that make a cell, by default those of `panel_keys(accuracy, x)`.

    Returns columns `by`, `flow`, `metric`, `n`, `tau` (Kendall's rank correlation with x),
    `p_value`, `p_holm` (corrected for all rows) and `slope`: Theil-Sen slope of log error on log x,
    so an error ∝ x has slope 1. Of finished runs only. NaN where there are fewer than two values of
    x or four runs.

    Raises `ValueError` for a column that does not exist or is not numeric.

    >>> table = trends(accuracy(load(example_sweep)), "lr", "final_distance")
    >>> table[["rule", "flow", "n"]].to_numpy().tolist()[0]
    ['gradient_descent', 'central', 4]
    """
    check_accuracy(accuracy)
    if x not in accuracy or not pd.api.types.is_numeric_dtype(accuracy[x]):
        raise ValueError(f"x must be a numeric column of the frame, got {x!r}")
    wanted = [find_metric(name).name for name in as_names(metrics)]
    keys = panel_keys(accuracy, x) if by is None else check_by(accuracy, by)
    finished = accuracy[accuracy["run_status"].astype("str") == "finished"]
    rows: list[dict[str, Any]] = []
    for cell, group in cells(finished, [*keys, "flow"]):
        values = group[x].to_numpy(dtype=np.float64, na_value=np.nan)
        for name in wanted:
            rows.append(cell | {"metric": name} | trend(values, group[name].to_numpy())._asdict())
    frame = pd.DataFrame(rows, columns=[*keys, "flow", "metric", "n", "tau", "p_value", "slope"])
    corrected = holm(frame["p_value"].to_numpy(dtype=np.float64))
    frame.insert(len(frame.columns) - 1, "p_holm", corrected)
    return keep_dtypes(frame, accuracy, [*keys, "flow"])


def lr_trend(
    accuracy: pd.DataFrame,
    metrics: str | Sequence[str] = ("final_distance", "log_loss_error"),
    by: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """How errors depend on the learning rate: `trends` with x = `lr`.

    >>> trends = lr_trend(accuracy(load(example_sweep)), metrics=["final_distance"])
    >>> trends.loc[trends["rule"] == "rmsprop", "tau"].isna().all()
    np.True_
    """
    return trends(accuracy, "lr", metrics, by)
