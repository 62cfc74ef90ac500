"""Intervals, tests and survival curves against textbook values, scipy, and simulated coverage."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from analysis.infer import intervals, kaplan_meier, median_horizon


@pytest.mark.parametrize("statistic", [np.mean, np.var, np.median])
def test_bca_without_widening_is_scipys(statistic: Callable[..., np.ndarray]) -> None:
    # Skewed data and a biased statistic, so that bias and acceleration both matter.
    data = np.random.default_rng(1).lognormal(sigma=0.8, size=25)
    ours = intervals.bca(data, statistic, resamples=20_000, expand=False)
    theirs = stats.bootstrap(
        (data,), statistic, n_resamples=20_000, method="BCa", rng=np.random.default_rng(2)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_widening_fades_with_n() -> None:
    rng = np.random.default_rng(0)
    widths = {}
    for n in (10, 500):
        data = rng.normal(size=n)
        wide, plain = (intervals.bca(data, np.mean, expand=e) for e in (True, False))
        widths[n] = (wide.high - wide.low) / (plain.high - plain.low)
    assert widths[10] > 1.1
    assert widths[500] < 1.02


def test_widening_is_hesterbergs() -> None:
    """By √(n/(n-1)) · t_{n-1} / 1.96, as far as the bootstrap distribution is normal."""
    data = stats.norm.ppf((np.arange(20) + 0.5) / 20)
    wide, plain = (intervals.bca(data, np.mean, expand=e, resamples=100_000) for e in (True, False))
    expected = np.sqrt(20 / 19) * stats.t.ppf(0.975, 19) / stats.norm.ppf(0.975)
    assert (wide.high - wide.low) / (plain.high - plain.low) == pytest.approx(expected, abs=0.015)


def test_same_seed_same_interval() -> None:
    data = np.random.default_rng(0).normal(size=20)
    assert intervals.mean_interval(data, seed=3) == intervals.mean_interval(data, seed=3)
    assert intervals.mean_interval(data, seed=3) != intervals.mean_interval(data, seed=4)


def test_methods_by_size() -> None:
    assert intervals.mean_interval([]).method == "none"
    assert intervals.mean_interval([1.0, np.nan]).method == "none"
    low, high, method = intervals.mean_interval([1.0, 2.0, 3.0])
    assert method == "t"
    expected = stats.t.interval(0.95, 2, loc=2.0, scale=1 / np.sqrt(3))
    assert (low, high) == pytest.approx(expected)
    assert intervals.mean_interval([2.0] * 9) == (2.0, 2.0, "exact")
    assert intervals.mean_interval(np.arange(8.0)).method == "bca"
    assert intervals.median_interval(np.arange(5.0)).method == "none"
    assert intervals.median_interval(np.arange(6.0)).method == "bca"


@pytest.mark.parametrize("n", [5, 10, 30])
def test_coverage_of_the_mean(n: int) -> None:
    """Over 500 simulated cells the 95% interval covers the truth in 92% to 98%."""
    rng = np.random.default_rng(n)
    truth, covered = np.exp(0.02), 0
    for i in range(500):
        errors = np.exp(0.2 * rng.normal(size=n))  # mildly skewed and positive, as errors are
        low, high, _ = intervals.mean_interval(errors, seed=i)
        covered += low <= truth <= high
    assert 0.92 <= covered / 500 <= 0.98


def test_coverage_of_the_median_ratio_and_the_win_rate() -> None:
    rng = np.random.default_rng(0)
    n, median_covered, win_covered = 20, 0, 0
    for i in range(500):
        logs = rng.normal(-0.5, 1.0, size=n)
        found = intervals.median_interval(logs, seed=i)
        median_covered += found.low <= -0.5 <= found.high
        low, high = intervals.wilson(int(np.sum(logs < 0)), n)
        win_covered += low <= stats.norm.cdf(0.5) <= high
    assert 0.92 <= median_covered / 500 <= 0.98
    assert 0.92 <= win_covered / 500 <= 0.985  # discrete: it can only be met roughly


def test_coverage_of_the_median_horizon() -> None:
    """Exponential horizons, cut off by the end of the run."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(500):
        time, end = rng.exponential(100.0, size=30), rng.uniform(50, 400, size=30)
        found = median_horizon(np.minimum(time, end), time <= end)
        covered += found.low <= 100 * np.log(2) <= found.high
    assert 0.92 <= covered / 500 <= 0.98


def test_wilson_is_the_textbook_formula() -> None:
    k, n, z = 3, 12, 1.959963985
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert intervals.wilson(k, n) == pytest.approx((centre - half, centre + half))
    assert np.isnan(intervals.wilson(0, 0)).all()


def test_holm_is_the_textbook_example() -> None:
    p = [0.01, 0.04, 0.03, 0.005, np.nan]
    np.testing.assert_allclose(intervals.holm(p), [0.03, 0.06, 0.06, 0.02, np.nan])
    np.testing.assert_allclose(intervals.holm([0.6, 0.7]), [1.0, 1.0])


def test_wilcoxon() -> None:
    assert intervals.wilcoxon_p([0.0, 0.0]) == 1.0
    assert np.isnan(intervals.wilcoxon_p([]))
    assert intervals.wilcoxon_p(np.arange(1.0, 9.0)) == pytest.approx(2 / 2**8)


@pytest.mark.parametrize("n", [1, 2, 5, 9])
@pytest.mark.parametrize("seed", range(4))
def test_wilcoxon_with_ties_and_zeros_is_scipys(n: int, seed: int) -> None:
    data = np.random.default_rng(seed).integers(-3, 4, size=n).astype(float)
    data[0] = 2.0  # not all zero
    expected = stats.wilcoxon(data, zero_method="zsplit").pvalue
    assert intervals.wilcoxon_p(data) == pytest.approx(expected, rel=1e-12)


def test_trend_finds_slope_and_sign() -> None:
    lr = np.repeat([0.01, 0.02, 0.04, 0.08], 5)
    error = lr**1.5 * np.exp(0.05 * np.random.default_rng(0).normal(size=20))
    found = intervals.trend(lr, error)
    assert found.tau > 0.8
    assert found.p_value < 1e-4
    assert found.slope == pytest.approx(1.5, abs=0.1)
    assert np.isnan(intervals.trend(np.ones(9), np.arange(9)).tau)
    assert np.isnan(intervals.trend([1, 2, 3], [1, 2, 3]).tau)


def test_kaplan_meier_is_scipys() -> None:
    rng = np.random.default_rng(0)
    time = rng.integers(1, 30, size=60).astype(float)
    observed = rng.random(60) < 0.6
    ours = kaplan_meier(time, observed)
    data = stats.CensoredData(uncensored=time[observed], right=time[~observed])
    theirs = stats.ecdf(data).sf
    np.testing.assert_allclose(ours.share, theirs.evaluate(ours.time))
    limits = theirs.confidence_interval(method="log-log")
    inner = (ours.share > 0) & (ours.share < 1)
    np.testing.assert_allclose(ours.low[inner], limits.low.evaluate(ours.time[inner]))
    np.testing.assert_allclose(ours.high[inner], limits.high.evaluate(ours.time[inner]))


@pytest.mark.parametrize(
    ("time", "observed", "median"),
    [
        ([5, 10, 20], [True, True, True], 10),
        ([5, 10, 20], [True, False, False], np.inf),
        ([5, 10], [True, False], 5),  # at a half counts as reached
        ([5, 5, 10, 20], [True, False, True, True], 10),  # the median of what was seen is 10 too
        ([1, 6, 7, 8], [False, True, True, True], 7),
        ([], [], np.nan),
    ],
)
def test_median_horizon(time: list[float], observed: list[bool], median: float) -> None:
    np.testing.assert_equal(median_horizon(time, observed).median, median)


def test_a_single_run_has_no_limits() -> None:
    assert np.isnan(median_horizon([5.0], [True]).low)


def test_limits_where_no_run_is_left() -> None:
    curve = kaplan_meier([1, 2, 3, 3], [True, False, True, True])
    assert curve.time.tolist() == [0, 1, 3]  # where the curve falls
    assert curve.share.tolist() == [1.0, 0.75, 0.0]
    assert curve.low[-1] == 0.0
    assert np.isnan(curve.high[-1])
    # The upper limit never came down to a half before, and at the end there is none.
    assert median_horizon([1, 2, 3, 3], [True, False, True, True]).high == np.inf
