"""Predicted against measured oscillation variances, pooled over runs, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.aggregate import cells, check_by, check_frame, keep_dtypes, panel_keys
from analysis.columns import CONFIGURATION
from analysis.intervals import NO_INTERVAL, Interval, t_quantile
from analysis.scoring import independent, variance_series
from analysis.smoothing import DEFAULT_BANDWIDTH, window_records
from analysis.tables import Source, opened
from analysis.trace import Trace

_FIT = (
    "n_runs", "points", "slope", "slope_low", "slope_high", "r2", "r2_low", "r2_high", "ci_method",
)  # fmt: skip


def variance_points(trace: Trace, bandwidth: float) -> list[dict[str, Any]]:
    """Predicted and measured variances of one run: rows of flow, step, direction, both variances.

    Only steps whose averaging windows do not overlap are taken, so that points are nearly
    independent; directions are those of Σ's eigenvectors, the largest variance first.
    """
    rows = []
    for flow in trace.flows:
        columns = trace.scored(flow)
        predicted, measured = variance_series(columns, bandwidth)
        every = window_records(columns["step"], bandwidth)
        few, seen = independent(predicted, measured, every)
        for i, j in np.argwhere((few > 0) & (seen > 0)):
            rows.append(
                {
                    "run_id": trace.run_id,
                    "flow": flow,
                    "direction": int(j) + 1,
                    "predicted": float(few[i, j]),
                    "measured": float(seen[i, j]),
                }
            )
    return rows


def covariance_points(results: Source, *, bandwidth: float = DEFAULT_BANDWIDTH) -> pd.DataFrame:
    """Predicted and measured variances of all finished runs, with their configuration.

    Columns `run_id`, the configuration, `seed`, `flow`, `direction`, `predicted`, `measured` (both
    in the loss's unit: P's metric).

    >>> points = covariance_points(load(example_sweep))
    >>> (points["predicted"] / points["measured"]).round(2).unique().tolist()
    [1.25]
    """
    results = opened(results)
    finished = results.runs[results.runs["status"] == "finished"]
    wanted = set(finished["run_id"])
    columns = ("sigma_eigs", "displacement_sq", "status")
    rows = [
        row
        for trace in results.traces(columns)
        if trace.run_id in wanted
        for row in variance_points(trace, bandwidth)
    ]
    return points_frame(rows, results.runs)


def points_frame(rows: list[dict[str, Any]], runs: pd.DataFrame) -> pd.DataFrame:
    """Frame of `covariance_points` from the rows of `variance_points`."""
    names = ["run_id", "flow", "direction", "predicted", "measured"]
    points = pd.DataFrame(rows, columns=names).astype({"run_id": "str", "flow": "category"})
    configuration = runs[["run_id", *CONFIGURATION, "seed"]]
    frame = configuration.merge(points, on="run_id", how="right")
    frame.attrs = {"units": {"predicted": "loss", "measured": "loss"}}
    return frame


def covariance_fit(points: pd.DataFrame, by: str | Sequence[str] | None = None) -> pd.DataFrame:
    """Fit log measured = a + slope · log predicted variance: one row per cell × flow.

    Columns `by` (by default those of `aggregate.panel_keys`), `flow`, `n_runs`, `points`, `slope`,
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
    found = _jackknife(slopes, float(slope))
    cap = 1 - 1e-12  # a perfect correlation has an infinite z
    z = np.arctanh(np.clip(correlations, -cap, cap))
    z_low, z_high, method = _jackknife(z, float(np.arctanh(np.clip(correlation, -cap, cap))))
    squares = sorted((np.tanh(z_low) ** 2, np.tanh(z_high) ** 2))
    if z_low < 0 < z_high:
        squares[0] = 0.0
    return found, Interval(float(squares[0]), float(squares[1]), method)


def _jackknife(left_out: NDArray[np.float64], estimate: float) -> Interval:
    """Jackknife interval from the estimates without each run; none if one of them is undefined."""
    if not np.isfinite(left_out).all():
        return NO_INTERVAL
    n = len(left_out)
    error = np.sqrt((n - 1) / n * np.sum((left_out - left_out.mean()) ** 2))
    half = float(t_quantile(n - 1) * error)
    return Interval(float(estimate - half), float(estimate + half), "jackknife")
