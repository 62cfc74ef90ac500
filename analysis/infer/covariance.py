"""Fits of measured on predicted oscillation variances, pooled over runs, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.infer.cells import cells, check_by, check_frame, keep_dtypes, panel_keys
from analysis.infer.intervals import NO_INTERVAL, Interval, jackknife_interval

_FIT = (
    "n_runs", "points", "slope", "slope_low", "slope_high", "r2", "r2_low", "r2_high", "ci_method",
)  # fmt: skip


def covariance_fit(points: pd.DataFrame, by: str | Sequence[str] | None = None) -> pd.DataFrame:
    """Fit log measured = a + slope · log predicted variance: one row per cell × flow.

    Columns `by` (by default those of `panel_keys`), `flow`, `n_runs`, `points`, `slope`,
    `r2`, their 95% limits, and `ci_method`.
    Intervals come from leaving out runs, not points, because points of one run are correlated: the
    `jackknife` with Student's t (for R² on Fisher's z of the correlation); `none` for one run, and
    where some run leaves fewer than three points, or no spread, when it is left out.

    Raises `ValueError` for a column that does not exist.

    >>> fit = covariance_fit(covariance_points(load(example_sweep)), by=["rule"])
    >>> fit[["rule", "n_runs", "slope", "r2"]].round(3)
                   rule  n_runs  slope   r2
    0  gradient_descent       4    1.0  1.0
    1           rmsprop       2    1.0  1.0
    """
    check_frame(points, ("run_id", "flow", "predicted", "measured"), "analysis.covariance_points")
    keys = panel_keys(points) if by is None else check_by(points, by)
    rows = []
    for cell, group in cells(points, [*keys, "flow"]):
        sums = _sums_by_run(group)
        if len(sums) == 0:
            continue
        slope, correlation = _fit(sums.sum(axis=0))
        slope_ci, r2_ci = _limits(sums)
        rows.append(
            cell
            | {
                "n_runs": len(sums),
                "points": int(sums[:, 0].sum()),
                "slope": float(slope),
                "slope_low": slope_ci.low,
                "slope_high": slope_ci.high,
                "r2": float(correlation**2),
                "r2_low": r2_ci.low,
                "r2_high": r2_ci.high,
                "ci_method": slope_ci.method,
            }
        )
    frame = pd.DataFrame(rows, columns=[*keys, "flow", *_FIT])
    return keep_dtypes(frame, points, [*keys, "flow"])


def _sums_by_run(points: pd.DataFrame) -> NDArray[np.float64]:
    """Per run: n, Σx, Σy, Σx², Σxy, Σy² of the logarithms, shape (runs, 6)."""
    x = np.log(points["predicted"].to_numpy(dtype=np.float64))
    y = np.log(points["measured"].to_numpy(dtype=np.float64))
    if len(x) == 0:
        return np.zeros((0, 6))
    # Centred first: the sums of squares of large logarithms would lose digits.
    x, y = x - x.mean(), y - y.mean()
    table = pd.DataFrame(
        {"n": np.ones(len(x)), "x": x, "y": y, "xx": x * x, "xy": x * y, "yy": y * y}
    )
    return table.groupby(points["run_id"].to_numpy()).sum().to_numpy()


def _fit(sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slope and correlation from sums (..., 6); NaN without spread or below three points."""
    n, sx, sy, sxx, sxy, syy = np.moveaxis(np.asarray(sums, dtype=np.float64), -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        var_x, var_y = sxx - sx**2 / n, syy - sy**2 / n
        cov = sxy - sx * sy / n
        enough = (n >= 3) & (var_x > 1e-12)
        slope = np.where(enough, cov / var_x, np.nan)
        correlation = np.where(enough & (var_y > 1e-12), cov / np.sqrt(var_x * var_y), np.nan)
    return slope, np.clip(correlation, -1.0, 1.0)


def _limits(sums: NDArray[np.float64]) -> tuple[Interval, Interval]:
    runs = len(sums)
    if runs < 2:
        return NO_INTERVAL, NO_INTERVAL
    slopes, correlations = _fit(sums.sum(axis=0) - sums)
    slope, correlation = _fit(sums.sum(axis=0))
    found = jackknife_interval(slopes, float(slope))
    cap = 1 - 1e-12  # a perfect correlation has an infinite z
    z = np.arctanh(np.clip(correlations, -cap, cap))
    z_low, z_high, method = jackknife_interval(
        z, float(np.arctanh(np.clip(correlation, -cap, cap)))
    )
    squares = sorted((np.tanh(z_low) ** 2, np.tanh(z_high) ** 2))
    if z_low < 0 < z_high:
        squares[0] = 0.0
    return found, Interval(float(squares[0]), float(squares[1]), method)
