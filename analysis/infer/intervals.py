"""Intervals and tests of plain arrays: bootstrap, proportions, corrections, trends.

Every interval carries the name of the method that made it, because the method depends on how much
data there is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.95
RESAMPLES = 2000
MIN_BOOTSTRAP = 8  # below this the resamples are too few distinct ones: simulated cover < 90%
MIN_MEDIAN = 6  # below this the whole range of the data covers the median less than 95%
MANY = 200  # from here on, closed forms that the bootstrap agrees with to second order
_ALL_SIGNS = 13  # differences of which all signs are gone through: 8,192, as scipy does
_SLOPE_RUNS = 1_000  # of which all pairs are compared
_CHUNK = 2_000_000  # resampled values held at once


class Interval(NamedTuple):
    """Limits at level `LEVEL`, and how they were made.

    `bca`, `t`, `edgeworth`, `order`, `jackknife`, `exact` or `none`.
    """

    low: float
    high: float
    method: str


class Trend(NamedTuple):
    """Kendall's rank correlation with its p-value, and the median slope of log y on log x."""

    tau: float
    p_value: float
    slope: float
    n: int


NORMAL_QUANTILE = float(stats.norm.ppf(0.5 + LEVEL / 2))
NO_INTERVAL = Interval(np.nan, np.nan, "none")


def mean_interval(values: ArrayLike, *, seed: int = 0) -> Interval:
    """95% interval of a mean, from independent values (NaN are left out).

    n >= 200: `edgeworth`. n >= 8: BCa bootstrap (see `bca`). 2 <= n < 8: Student's t, because a
    bootstrap of so few values cannot reach beyond their range (simulated cover of BCa: 71% at
    n = 3, 86% at n = 5; of t: 95%). n = 1: none. Values that are all equal: that value, `exact`.

    >>> mean_interval([1.0, 2.0, 3.0]).method, mean_interval([1.0]).method
    ('t', 'none')
    >>> mean_interval(range(20)).method
    'bca'
    """
    data = _finite(values)
    n = len(data)
    if n < 2:
        return NO_INTERVAL
    if np.ptp(data) == 0:
        return Interval(float(data[0]), float(data[0]), "exact")
    if n >= MANY:
        return edgeworth(data)
    if n >= MIN_BOOTSTRAP:
        return bca(data, np.mean, seed=seed)
    half = t_quantile(n - 1) * data.std(ddof=1) / np.sqrt(n)
    return Interval(float(data.mean() - half), float(data.mean() + half), "t")


def median_interval(values: ArrayLike, *, seed: int = 0) -> Interval:
    """95% interval of a median: BCa bootstrap; order statistics from n = 200; none below n = 6.

    NaN are left out. Infinite values count: the interval is then between order statistics too, and
    its limits may be infinite.

    >>> median_interval([1.0, 2.0, 3.0])
    Interval(low=nan, high=nan, method='none')
    >>> median_interval([1.0, 2.0, 3.0, 4.0, 5.0, np.inf])
    Interval(low=1.0, high=inf, method='order')
    """
    data = np.asarray(values, dtype=np.float64)
    data = data[~np.isnan(data)]
    if len(data) < MIN_MEDIAN:
        return NO_INTERVAL
    if np.all(data == data[0]):
        return Interval(float(data[0]), float(data[0]), "exact")
    if len(data) >= MANY or np.isinf(data).any():
        return between_ranks(data)
    return bca(data, np.median, seed=seed)


def edgeworth(data: NDArray[np.float64]) -> Interval:
    """95% interval of a mean, corrected for skewness (Hall 1992, section 3.5).

        x̄ + s/√n (±z + γ (2z² + 1) / 6√n),   γ the skewness of the data

    BCa has the same limits up to terms of order 1/n, at a cost of n² rather than n.

    >>> low, high, _ = edgeworth(np.linspace(0.0, 1.0, 1001))
    >>> round(low, 3), round(high, 3)
    (0.482, 0.518)
    """
    n, mean, sd = len(data), float(data.mean()), float(data.std(ddof=1))
    skewness = float(np.mean(((data - mean) / sd) ** 3))
    z = np.array([-NORMAL_QUANTILE, NORMAL_QUANTILE])
    low, high = mean + sd / np.sqrt(n) * (z + skewness * (2 * z**2 + 1) / (6 * np.sqrt(n)))
    return Interval(float(low), float(high), "edgeworth")


def between_ranks(data: NDArray[np.float64]) -> Interval:
    """95% interval of a median between two of the sorted values, whatever their distribution.

    The number of values below the median is binomial(n, ½): the ranks are its quantiles.

    >>> between_ranks(np.arange(1001.0))
    Interval(low=469.0, high=531.0, method='order')
    """
    n = len(data)
    below = int(stats.binom.ppf((1 - LEVEL) / 2, n, 0.5))
    ordered = np.sort(data)
    return Interval(float(ordered[below - 1]), float(ordered[n - below]), "order")


def bca(
    data: NDArray[np.float64],
    statistic: Callable[..., NDArray],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    expand: bool = True,
) -> Interval:
    """Bias-corrected and accelerated bootstrap interval (Efron 1987) of a statistic.

    The end points are quantiles Φ(z₀ + (z₀ ± z) / (1 - a(z₀ ± z))) of the resampled statistic, z₀
    its median bias and a the acceleration from the jackknife. With `expand`, z is not 1.96 but
    √(n/(n-1)) · t_{n-1}, which repairs most of the bootstrap's known lack of width for small n
    (Hesterberg 2015, "expanded percentile"); the two agree for large n.

    Args:
        data: (n,), n >= 2, finite and not all equal.
        statistic: takes `axis=`, e.g. `numpy.mean`.
        seed: same seed and data, same interval.
        resamples: how many.
        expand: widen for small n, as above; without it, the textbook interval.

    >>> low, high, method = bca(np.arange(20.0), np.mean)
    >>> method, low < 9.5 < high
    ('bca', True)
    """
    n = len(data)
    estimate = float(statistic(data, axis=0))
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // n)
    draws = np.concatenate(
        [
            statistic(data[rng.integers(0, n, (min(rows, resamples - done), n))], axis=1)
            for done in range(0, resamples, rows)
        ]
    )
    below = (np.sum(draws < estimate) + 0.5 * np.sum(draws == estimate)) / resamples
    bias = stats.norm.ppf(np.clip(below, 0.5 / resamples, 1 - 0.5 / resamples))
    left_out = _leave_one_out(data, statistic)
    deviation = left_out.mean() - left_out
    spread = float(deviation @ deviation)
    acceleration = float(np.sum(deviation**3)) / (6 * spread**1.5) if spread > 0 else 0.0
    z = NORMAL_QUANTILE
    if expand:
        z = np.sqrt(n / (n - 1)) * t_quantile(n - 1)
    shifted = bias + np.array([-z, z])
    levels = stats.norm.cdf(bias + shifted / np.maximum(1 - acceleration * shifted, 1e-9))
    low, high = np.quantile(draws, levels)
    return Interval(float(low), float(high), "bca")


def _leave_one_out(
    data: NDArray[np.float64], statistic: Callable[..., NDArray]
) -> NDArray[np.float64]:
    """Compute the statistic without each of the values in turn."""
    n = len(data)
    others = np.arange(n - 1)
    rows = max(1, _CHUNK // n)
    parts = []
    for first in range(0, n, rows):
        out = np.arange(first, min(first + rows, n))[:, None]
        parts.append(statistic(data[others + (others >= out)], axis=1))
    return np.concatenate(parts)


def jackknife_interval(left_out: NDArray[np.float64], estimate: float) -> Interval:
    """95% jackknife interval of an estimate from those without each run, by Student's t.

    None if one of them is undefined.

    >>> jackknife_interval(np.array([0.9, 1.0, 1.1]), 1.0).method
    'jackknife'
    """
    if not np.isfinite(left_out).all():
        return NO_INTERVAL
    n = len(left_out)
    error = np.sqrt((n - 1) / n * np.sum((left_out - left_out.mean()) ** 2))
    half = float(t_quantile(n - 1) * error)
    return Interval(float(estimate - half), float(estimate + half), "jackknife")


def wilson(successes: float, n: int) -> tuple[float, float]:
    """95% Wilson interval of a proportion, of which a tie is half a success; NaN for n = 0.

    >>> low, high = wilson(8, 10)
    >>> round(low, 3), round(high, 3)
    (0.49, 0.943)
    """
    if n == 0:
        return np.nan, np.nan
    share, z = successes / n, NORMAL_QUANTILE
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    middle, width = share + z**2 / (2 * n), 1 + z**2 / n
    return float(max(0.0, (middle - half) / width)), float(min(1.0, (middle + half) / width))


def wilcoxon_p(differences: ArrayLike) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test; zeros count as half of each sign (Pratt).

    Exact for up to 50 differences without ties or zeros, and for up to 13 with them. NaN without
    data, 1 if all are zero.

    >>> wilcoxon_p([1.0, 2.0, 3.0, 4.0, 5.0])
    0.0625
    """
    data = _finite(differences)
    if len(data) == 0:
        return np.nan
    if not np.any(data):
        return 1.0
    if len(data) <= _ALL_SIGNS and len(np.unique(np.abs(data[data != 0]))) < len(data):
        return _over_all_signs(data)
    return float(stats.wilcoxon(data, zero_method="zsplit").pvalue)


def _over_all_signs(data: NDArray[np.float64]) -> float:
    """Wilcoxon's two-sided p-value over all 2^n signs of the ranks: exact also with ties.

    scipy's, which calls Python once for each of them, takes seconds for 13 differences.
    """
    ranks = stats.rankdata(np.abs(data))  # multiples of a half, so that sums are exact
    sums = np.zeros(1)
    for rank in ranks[data != 0]:  # half of a zero's rank counts for each sign, whatever its own
        sums = np.concatenate([sums, sums + rank])
    found = np.sum(ranks[data > 0])
    return float(min(1.0, 2 * min(np.mean(sums <= found), np.mean(sums >= found))))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down correction: adjusted p-values in the given order; NaN stay and do not count.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p_values.shape, np.nan)
    tested = np.flatnonzero(np.isfinite(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p_values[order]))
    return adjusted


def trend(x: ArrayLike, y: ArrayLike) -> Trend:
    """Test whether y rises or falls with x: Kendall's τ_b, and Theil-Sen's slope of the logs.

    The test is of rank correlation, so it asks for no particular shape. NaN with fewer than two
    distinct x or fewer than four points; the slope needs positive values, and is of a random sample
    where there are more than 1,000 of them.

    >>> trend([1, 1, 2, 2, 4, 4], [1.0, 1.1, 2.0, 2.1, 4.1, 4.0]).tau > 0.8
    True
    """
    all_x, all_y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    keep = np.isfinite(all_x) & np.isfinite(all_y)
    xs, ys = all_x[keep], all_y[keep]
    if len(xs) < 4 or len(np.unique(xs)) < 2 or len(np.unique(ys)) < 2:
        return Trend(np.nan, np.nan, np.nan, len(xs))
    found = stats.kendalltau(xs, ys)
    positive = (xs > 0) & (ys > 0)
    slope = np.nan
    if positive.sum() >= 4 and len(np.unique(xs[positive])) > 1:
        some = np.flatnonzero(positive)
        if len(some) > _SLOPE_RUNS:
            some = np.random.default_rng(0).choice(some, _SLOPE_RUNS, replace=False)
        slope = float(stats.theilslopes(np.log(ys[some]), np.log(xs[some])).slope)
    return Trend(float(found.statistic), float(found.pvalue), slope, len(xs))


@cache
def t_quantile(degrees: int) -> float:
    """Quantile of Student's t for a two-sided interval; kept, because scipy's call is slow.

    >>> round(t_quantile(4), 3)
    2.776
    """
    return float(stats.t.ppf(0.5 + LEVEL / 2, degrees))


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    data = np.asarray(values, dtype=np.float64)
    return data[np.isfinite(data)]
