"""Confidence sequences: intervals that stay valid however often one looks, and whenever one stops.

An ordinary 95% interval looked at after every few seeds until it is narrow covers less than 95% of
the time. A confidence sequence covers at all sizes at once: P(some interval misses) <= 5%.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln

from analysis.infer.cells import cell_keys, cells, check_accuracy
from analysis.infer.intervals import LEVEL, Interval
from analysis.infer.order import scores_of
from analysis.read import MAIN_FLOW, REFERENCE_FLOW

RATIO_OF = "final_distance"
"""Error of which `ratio_precision` takes the ratio of two flows'."""

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


def ratio_precision(frame: pd.DataFrame) -> pd.DataFrame:
    """How well the median ratio ‖central - w_t‖ / ‖stable - w_t‖ at the end is known, by cell.

    A row per cell of seeds. Columns: what makes the cell (`cell_keys`); `runs` that have ended, `n`
    with a ratio of two flows that lasted; `median`, `low` and `high` of a confidence sequence
    (`median_sequence`) of the ratios; `halfwidth`, half of their distance relative to the median;
    `run_ids` of all that have ended. A flow that ended before its run is infinitely far off,
    whatever its error was until then: the ratio is infinite where the central flow ended, 0 where
    only the stable flow did. Runs that did not finish, and those in which a flow has neither an
    error nor an end, have no ratio, as in `summarize` and `compare`.

    `frame`: from `analysis.accuracy`. Raises `ValueError` for another.
    """
    check_accuracy(frame)
    keys = cell_keys(frame)
    rows = []
    for key, cell in cells(frame, keys):
        ratios, lasted = _ratios(cell)
        low, high, _ = median_sequence(ratios)
        median = float(np.median(ratios)) if len(ratios) else np.nan
        bounded = np.isfinite([low, high, median]).all() and median > 0
        run_ids = sorted(cell["run_id"].astype("str").unique())
        rows.append(
            {
                **key,
                "runs": len(run_ids),
                "n": int(lasted.sum()),
                "median": median,
                "low": low,
                "high": high,
                "halfwidth": (high - low) / 2 / median if bounded else np.inf,
                "run_ids": run_ids,
            }
        )
    columns = [*keys, "runs", "n", "median", "low", "high", "halfwidth", "run_ids"]
    return pd.DataFrame(rows, columns=columns)


def _ratios(cell: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Ratios of a cell's runs, and of which both flows lasted: `ratio_precision`."""
    flow = cell["flow"].astype("str")
    finished = cell["run_status"].astype("str") == "finished"
    pairs = cell[finished & (flow == MAIN_FLOW)].merge(
        cell.loc[flow == REFERENCE_FLOW, ["run_id", "flow_status", "last_step", RATIO_OF]],
        on="run_id", suffixes=("", "_second"),
    )  # fmt: skip
    above, below = scores_of(pairs, RATIO_OF), scores_of(pairs, RATIO_OF, "_second")
    defined = above.defined & below.defined
    above, below = above.taken(defined), below.taken(defined)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = above.error / below.error
    ratios = np.where((above.error == 0) & (below.error == 0), 1.0, ratios)  # both are exact
    ratios = np.where(below.ended, 0.0, ratios)
    return np.where(above.ended, np.inf, ratios), ~(above.ended | below.ended)
