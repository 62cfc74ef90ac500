"""Which of two flows was nearer in a run, where one of them may have ended before the run did."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.infer.intervals import wilcoxon_p
from analysis.read import ENDED

TIE = 1e-6  # relative difference up to which two errors are equal: rounding of float32


class Scores(NamedTuple):
    """Errors of one flow, one per run.

    Attributes:
        error: NaN where undefined.
        ended: whether the flow ended before the run did, so that its error is a lower bound.
        last_step: the last step that it reached.
    """

    error: NDArray[np.float64]
    ended: NDArray[np.bool_]
    last_step: NDArray[np.float64]

    @property
    def defined(self) -> NDArray[np.bool_]:
        """Where a flow has a place: an error, or an early end."""
        return ~np.isnan(self.error) | self.ended

    def taken(self, where: NDArray[np.bool_]) -> Scores:
        """Keep the runs where a mask is true."""
        return Scores(self.error[where], self.ended[where], self.last_step[where])


def scores_of(rows: pd.DataFrame, metric: str, suffix: str = "") -> Scores:
    """Scores from rows of `accuracy`, or of two of them merged, whose columns have a suffix."""
    status = rows[f"flow_status{suffix}"].astype("str")
    return Scores(
        rows[f"{metric}{suffix}"].to_numpy(dtype=np.float64),
        status.isin(ENDED).to_numpy(),
        rows[f"last_step{suffix}"].to_numpy(dtype=np.float64),
    )


def order(one: Scores, other: Scores) -> NDArray[np.float64]:
    """Return -1 for each run in which the first flow was nearer, 1 where the other was, 0 for ties.

    A flow that ended is behind every flow that lasted, and of two that ended the one that ended
    first is behind, whatever their errors were until then: worst ranks, as in trials in which
    patients drop out. Errors that agree to 1e-6 of themselves are a tie. NaN where either flow has
    neither an error nor an end.

    >>> lasted = Scores(np.array([0.14]), np.array([False]), np.array([600.0]))
    >>> ended = Scores(np.array([0.09]), np.array([True]), np.array([150.0]))
    >>> float(order(lasted, ended)[0])
    -1.0
    """
    with np.errstate(invalid="ignore"):
        apart = np.abs(one.error - other.error) > TIE * np.maximum(one.error, other.error)
        apart |= np.isinf(one.error) != np.isinf(other.error)
        by_error = np.where(apart, np.sign(one.error - other.error), 0.0)
        by_error[np.isnan(one.error) | np.isnan(other.error)] = np.nan
    both = one.ended & other.ended
    longer = np.sign(np.nan_to_num(other.last_step, nan=-1) - np.nan_to_num(one.last_step, nan=-1))
    found = np.where(
        both & (longer != 0), longer, np.where(both, np.nan_to_num(by_error), by_error)
    )
    found = np.where(one.ended & ~other.ended, 1.0, found)
    found = np.where(other.ended & ~one.ended, -1.0, found)
    return np.where(one.defined & other.defined, found, np.nan)


def bounded_ratio(one: Scores, other: Scores) -> NDArray[np.float64]:
    """Ratio of errors of each run; a flow that ended is never the nearer one by it.

    Infinite where the first error alone is, or the second alone is zero; 0 the other way round; 1
    where both are: a tie. Where only one flow ended, its error is a lower bound, so the ratio is a
    bound, and cut at 1 where it would favour it; of a flow that ended without an error it is 1. NaN
    where either flow has neither an error nor an end.

    >>> lasted = Scores(np.array([0.1, np.inf]), np.zeros(2, bool), np.full(2, 600.0))
    >>> ended = Scores(np.array([0.2, 0.2]), np.array([True, False]), np.array([150.0, 600.0]))
    >>> bounded_ratio(ended, lasted), bounded_ratio(lasted, ended)
    (array([2., 0.]), array([0.5, inf]))
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = one.error / other.error
    ratio = np.where(np.isnan(ratio), 1.0, ratio)
    ratio = np.where(one.ended & ~other.ended, np.maximum(ratio, 1.0), ratio)
    ratio = np.where(other.ended & ~one.ended, np.minimum(ratio, 1.0), ratio)
    return np.where(one.defined & other.defined, ratio, np.nan)


def signed_rank_p(one: Scores, other: Scores, sign: NDArray[np.float64]) -> float:
    """Wilcoxon's two-sided p-value; `sign`, from `order`, decides where a flow ended early.

    Of log ratios if all errors are positive, else of differences.
    """
    defined = ~np.isnan(sign)
    if not defined.any():
        return np.nan
    a, b = one.error[defined], other.error[defined]
    known = ~np.isnan(a) & ~np.isnan(b)
    positive = bool(np.all(a[known] > 0) and np.all(b[known] > 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.abs(np.log(a / b)) if positive else np.abs(a - b)
    decided = (one.ended | other.ended)[defined] | ~np.isfinite(size)
    largest = 2 * float(np.max(size[~decided], initial=0.5))
    return wilcoxon_p(sign[defined] * np.where(decided, largest, size))
