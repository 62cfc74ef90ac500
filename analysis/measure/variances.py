"""Predicted variances of the oscillation and measured ones, along Σ's eigenvectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.measure.smoothing import DEFAULT_BANDWIDTH, time_average, window_records
from analysis.measure.together import Together
from analysis.read import Floats, Source, Trace, configuration_of, declare_like, opened

NEGLIGIBLE = 1e-6  # of the largest variance of a run
OSCILLATION = ("sigma_eigs", "displacement_sq")
VARIANCE_COLUMNS = (*OSCILLATION, "status")


def variance_series(columns: Mapping[str, NDArray], bandwidth: float) -> tuple[Floats, Floats]:
    """Predicted variances and squared displacements along Σ's eigenvectors, time averages both.

    Both (n, k), in the unit of the loss (P's metric), NaN where there is no such direction or no
    time average.
    """
    return directions(
        *(time_average(columns["step"], columns[name], bandwidth) for name in OSCILLATION)
    )


def directions(predicted: Floats, measured: Floats) -> tuple[Floats, Floats]:
    """Keep the directions that two time averages (n, k) share, as `variance_series` does."""
    k = min(predicted.shape[1], measured.shape[1])
    predicted, measured = predicted[:, :k], measured[:, :k]
    known = np.isfinite(measured) & np.isfinite(predicted)
    return np.where(known, predicted, np.nan), measured


def independent(variances: Floats, measured: Floats, every: int) -> tuple[Floats, Floats]:
    """Take every so-many-th row with an average; no windows overlap if it is `window_records`.

    Variances below 1e-6 of the run's largest are dropped: they are a solver's way to say zero, and
    their logarithms would decide every fit.
    """
    if variances.size:
        floor = NEGLIGIBLE * np.nanmax(variances, initial=0.0)
        variances = np.where(variances > floor, variances, np.nan)
    rows = np.flatnonzero(np.isfinite(measured).any(axis=1))[::every]
    return variances[rows], measured[rows]


def total(values: Floats) -> Floats:
    """Sum over directions of an (n, k) array; NaN where none is defined."""
    some = np.isfinite(values).any(axis=1)
    return np.where(some, np.nansum(values, axis=1), np.nan)


def variance_points(
    trace: Trace, bandwidth: float, among: Together | None = None
) -> list[dict[str, Any]]:
    """Predicted and measured variances of one run: rows of flow, step, direction, both variances.

    Only steps whose averaging windows do not overlap are taken, so that points are nearly
    independent; directions are those of Σ's eigenvectors, the largest variance first.
    """
    rows = []
    among = Together([trace]) if among is None else among
    row = among.row(trace)
    for flow in trace.flows:
        averages = (among.average(flow, name, bandwidth)[row] for name in OSCILLATION)
        predicted, measured = directions(*averages)
        every = window_records(among.step(flow), bandwidth)
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
    rows = [
        row
        for trace in results.traces(VARIANCE_COLUMNS)
        if trace.run_id in wanted
        for row in variance_points(trace, bandwidth)
    ]
    return points_frame(rows, results.runs)


def points_frame(rows: list[dict[str, Any]] | pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Frame of `covariance_points` from the rows of `variance_points`."""
    names = ["run_id", "flow", "direction", "predicted", "measured"]
    points = pd.DataFrame(rows, columns=names).astype({"run_id": "str", "flow": "category"})
    configuration = runs[["run_id", *configuration_of(runs), "seed"]]
    frame = configuration.merge(points, on="run_id", how="right")
    frame.attrs = {"units": {"predicted": "loss", "measured": "loss"}}
    return declare_like(frame, runs)
