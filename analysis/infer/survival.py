"""Horizons that the end of a run cuts short: Kaplan-Meier curves and medians."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.infer.intervals import NORMAL_QUANTILE


class Survival(NamedTuple):
    """Kaplan-Meier curve: share of runs whose prediction still holds after each time (steps).

    `low`, `high`: pointwise 95% limits (log-log, from Greenwood's variance); where the share is 0
    that variance is undefined and `high` is NaN.
    """

    time: NDArray[np.float64]
    share: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


class MedianHorizon(NamedTuple):
    """Median with 95% limits in steps; infinite where the curve does not come down to a half."""

    median: float
    low: float
    high: float


def kaplan_meier(duration: ArrayLike, observed: ArrayLike) -> Survival:
    """Kaplan-Meier estimate from horizons and whether each was observed (else censored).

        S(t) = Π_{t_i <= t} (1 - d_i / n_i)

    with d_i horizons observed at t_i among the n_i runs that still held just before. The curve
    starts with S = 1 at time 0; NaN durations are left out.

    >>> kaplan_meier([1, 2, 2, 3], [True, True, False, True]).share.tolist()
    [1.0, 0.75, 0.5, 0.0]
    """
    given = np.asarray(duration, dtype=np.float64)
    keep = np.isfinite(given)
    ends, event = given[keep], np.asarray(observed, dtype=bool)[keep]
    times = np.unique(ends[event])
    at_risk = len(ends) - np.searchsorted(np.sort(ends), times).astype(np.float64)
    events = np.unique(ends[event], return_counts=True)[1].astype(np.float64)
    share = np.cumprod(1 - events / at_risk) if len(times) else np.array([])
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.cumsum(events / (at_risk * (at_risk - events)))
        error = np.sqrt(variance) / np.abs(np.log(share))
        z = NORMAL_QUANTILE
        # On the scale log(-log S) the limits stay within [0, 1]; at S = 0 there are none.
        low = np.where(share > 0, share ** np.exp(z * error), 0.0)
        high = np.where(share > 0, share ** np.exp(-z * error), np.nan)
    start = np.ones(1)
    return Survival(
        np.concatenate([[0.0], times]),
        np.concatenate([start, share]),
        np.concatenate([start, low]),
        np.concatenate([start, high]),
    )


def median_horizon(duration: ArrayLike, observed: ArrayLike) -> MedianHorizon:
    """Median horizon of censored data, with Brookmeyer and Crowley's 95% limits.

    The first time at which the Kaplan-Meier curve (for the limits: its pointwise limits) is at or
    below a half; infinite if it never is, NaN without data. A single run has no limits (NaN).

    >>> median_horizon([10, 20, 30], [True, True, True]).median
    20.0
    >>> median_horizon([10, 50, 50], [True, False, False]).median
    inf
    """
    finite = np.isfinite(np.asarray(duration, dtype=np.float64))
    if not finite.any():
        return MedianHorizon(np.nan, np.nan, np.nan)
    curve = kaplan_meier(duration, observed)
    median = _first_half(curve.time, curve.share)
    if finite.sum() == 1:
        return MedianHorizon(median, np.nan, np.nan)
    return MedianHorizon(
        median, _first_half(curve.time, curve.low), _first_half(curve.time, curve.high)
    )


def _first_half(time: NDArray[np.float64], share: NDArray[np.float64]) -> float:
    below = np.flatnonzero(share <= 0.5 + 1e-12)
    return float(time[below[0]]) if len(below) else np.inf
