"""Confidence sequences: intervals that stay valid however often one looks, and whenever one stops.

An ordinary 95% interval looked at after every few seeds until it is narrow covers less than 95% of
the time. A confidence sequence covers at all sizes at once: P(some interval misses) <= 5%.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import betaln

from analysis.infer.cells import cell_keys, cells
from analysis.infer.intervals import LEVEL, Interval

CONCENTRATION = 2.0
"""a of the mixture's Beta(a, a): no other is much narrower between 10 and 300 values."""


def median_sequence(values: ArrayLike) -> Interval:
    """Confidence sequence of a median at level `LEVEL`, from independent values in any order.

    Where m is the median, each value is below it with probability 1/2, so that for every mixture of
    Bernoulli alternatives the likelihood ratio

        M_n(k) = 2ⁿ B(a + k, a + n - k) / B(a, a),   k of n values <= m,

    is a martingale that starts at 1; by Ville's inequality it ever reaches 20 with a probability of
    at most 5%. The interval holds all m with M_n < 20: the range between two order statistics
    (Robbins 1970; beta-binomial mixture of Howard, Ramdas, McAuliffe and Sekhon 2021, Ann. Stat.
    49, for quantiles in Howard and Ramdas 2022, Bernoulli 28). No assumption on the distribution;
    ties widen it.

    Returns infinite limits while there are too few values. NaN are not allowed: what is undefined
    can't be left out without saying so.

    >>> median_sequence(range(1, 100))
    Interval(low=35.0, high=65.0, method='sequence')
    >>> median_sequence([1.0, 2.0]).high
    inf
    """
    data = np.sort(np.asarray(values, dtype=np.float64))
    if np.isnan(data).any():
        raise ValueError("values must be numbers, got NaN")
    lowest = _least_count(len(data))
    bounded = np.concatenate([[-np.inf], data, [np.inf]])
    return Interval(float(bounded[lowest]), float(bounded[-1 - lowest]), "sequence")


@cache
def _least_count(n: int) -> int:
    """Return the least k for which the median may have k of n values below it."""
    k = np.arange(n // 2 + 1)
    a = CONCENTRATION
    log_ratio = n * np.log(2.0) + betaln(a + k, a + n - k) - betaln(a, a)
    return int(np.argmax(log_ratio < -np.log(1.0 - LEVEL)))


def ratio_precision(
    frame: pd.DataFrame,
    flow: str = "central",
    against: str = "stable",
    metric: str = "final_distance",
) -> pd.DataFrame:
    """How well the median ratio of two flows' distances is known: one row per cell of seeds.

    Columns: what makes the cell (`cell_keys`); `runs` that have ended, `n` with a ratio; `median`,
    `low` and `high` of a confidence sequence (`median_sequence`); `halfwidth`, half of their
    distance relative to the median; `run_ids`. A run of which `flow` has no distance (it stopped,
    or the run failed) counts as an infinite ratio, and one of which only `against` has none as 0,
    so that nothing is left out in favour of a flow; `n` does not count them.

    `frame`: from `analysis.accuracy`.
    """
    keys = cell_keys(frame)
    rows = []
    for key, cell in cells(frame, keys):
        by_flow = cell.pivot(index="run_id", columns="flow", values=metric)
        by_flow = by_flow.reindex(columns=[flow, against]).astype("float64")
        above, below = by_flow[flow], by_flow[against]
        ratios = (above / below).where(above.notna(), np.inf).where(below.notna() | above.isna(), 0)
        ratios = ratios.fillna(1.0)  # 0 / 0: both are exact
        low, high, _ = median_sequence(ratios)
        median = float(np.median(ratios))
        bounded = np.isfinite([low, high, median]).all() and median > 0
        rows.append(
            {
                **key,
                "runs": len(ratios),
                "n": int((above.notna() & below.notna()).sum()),
                "median": median,
                "low": low,
                "high": high,
                "halfwidth": (high - low) / 2 / median if bounded else np.inf,
                "run_ids": list(by_flow.index),
            }
        )
    columns = [*keys, "runs", "n", "median", "low", "high", "halfwidth", "run_ids"]
    return pd.DataFrame(rows, columns=columns)
