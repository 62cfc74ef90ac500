"""Formulas of the metrics: functions of plain arrays along one trajectory.

| symbol | meaning |
| --- | --- |
| w_t, w_0 | the optimizer's parameters at step t and at the common starting point |
| w(t) | a flow's parameters |
| p_t | a flow's prediction of a quantity at step t |
| x̄_t | the optimizer's time average of that quantity (`smoothing.time_average`) |

NaN means undefined: such steps are left out of every mean, and a metric without a single defined
step is NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

EDGE = 2.0  # effective sharpness at which the optimizer's step becomes unstable
EDGE_THRESHOLD = 1.95  # time-averaged effective sharpness counted as being at the edge
NEAR_EDGE = 0.02  # relative distance to the edge up to which a sharpness counts as near it
DEFAULT_TOLERANCE = 0.05


class Horizon(NamedTuple):
    """A prediction horizon in steps; `observed` is false where the data ended first (censored)."""

    steps: float
    observed: bool


class LogLogFit(NamedTuple):
    """Least-squares line of log y on log x: slope, R² and the number of points."""

    slope: float
    r2: float
    points: int


def relative_distance(distance: ArrayLike, from_start: ArrayLike) -> NDArray[np.float64]:
    """Distance of a flow to the optimizer, relative to how far the optimizer has come.

        r_t = ‖w_t - w(t)‖ / ‖w_t - w_0‖        (no unit)

    NaN at the start, where it is 0/0, and where the optimizer has overflowed.

    >>> relative_distance([0.0, 0.1, 0.3], [0.0, 1.0, 2.0])
    array([ nan, 0.1 , 0.15])
    """
    distance = np.asarray(distance, dtype=np.float64)
    from_start = np.asarray(from_start, dtype=np.float64)
    out = np.full(distance.shape, np.nan)
    known = (from_start > 0) & np.isfinite(from_start)
    return np.divide(distance, from_start, out=out, where=known)


def final_value(values: ArrayLike) -> float:
    """Last defined value of a series; NaN if there is none.

    >>> final_value([0.1, 0.2, float("nan")])
    0.2
    """
    values = np.asarray(values, dtype=np.float64)
    defined = values[np.isfinite(values)]
    return float(defined[-1]) if len(defined) else np.nan


def mean_value(values: ArrayLike, where: ArrayLike | None = None) -> float:
    """Mean over the defined steps, or over those of them where a mask is true.

    >>> mean_value([1.0, 3.0, float("nan")]), mean_value([1.0, 3.0], where=[False, True])
    (2.0, 3.0)
    """
    values = np.asarray(values, dtype=np.float64)
    keep = np.isfinite(values)
    if where is not None:
        keep &= np.asarray(where, dtype=bool)
    return float(values[keep].mean()) if keep.any() else np.nan


def prediction_horizon(
    step: ArrayLike,
    relative: ArrayLike,
    *,
    tolerance: float = DEFAULT_TOLERANCE,
    stopped: bool = False,
    lasting: bool = False,
) -> Horizon:
    """First step at which the relative distance is above the tolerance.

    With `lasting`, the step from which on it stays above, to the end: the first crossing says
    little where the optimizer has hardly left its start, because the denominator is small there.

    A run that ends first (for `lasting`: that ends below the tolerance) is right-censored at its
    last step. A flow that `stopped`, or diverged, predicts nothing any more, so its horizon is
    observed at its last step: to take that for censoring would count a failed prediction as a
    promising one. NaN (censored) without a defined step.

    Raises `ValueError` unless the tolerance is between 0 and 1.

    >>> prediction_horizon([0, 1, 2, 3], [0.0, 0.2, 0.01, 0.3])
    Horizon(steps=1.0, observed=True)
    >>> prediction_horizon([0, 1, 2, 3], [0.0, 0.2, 0.01, 0.3], lasting=True)
    Horizon(steps=3.0, observed=True)
    >>> prediction_horizon([0, 1, 2], [0.0, 0.01, 0.02])
    Horizon(steps=2.0, observed=False)
    """
    check_tolerance(tolerance)
    relative = np.asarray(relative, dtype=np.float64)
    known = ~np.isnan(relative)  # infinite is above any tolerance
    steps, above = np.asarray(step)[known], relative[known] > tolerance
    if not len(steps):
        return Horizon(np.nan, False)
    below = np.flatnonzero(~above)
    if lasting:
        lost = int(below[-1]) + 1 if len(below) else 0
    else:
        lost = int(np.argmax(above)) if above.any() else len(steps)
    if lost == len(steps):
        return Horizon(float(steps[-1]), stopped)
    return Horizon(float(steps[lost]), True)


def check_tolerance(tolerance: float) -> None:
    """Raise `ValueError` unless a relative distance can be on either side of the tolerance.

    >>> check_tolerance(5.0)
    Traceback (most recent call last):
    ValueError: tolerance must be > 0 and < 1, got 5.0
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be > 0 and < 1, got {tolerance}")


def log_errors(predicted: ArrayLike, average: ArrayLike) -> NDArray[np.float64]:
    """Absolute errors of a logarithm (natural), for positive quantities over many decades.

        |log p_t - log x̄_t|        (no unit; 0.01 is about one per cent)

    Undefined where x̄_t is not positive; infinite where x̄_t is and p_t is not, because a prediction
    that is impossible must not be left out.

    >>> log_errors([1.0, 2.0, -1.0, 1.0], [1.0, 1.0, 1.0, 0.0]).round(4)
    array([0.    , 0.6931,    inf,    nan])
    """
    predicted = np.asarray(predicted, dtype=np.float64)
    average = np.asarray(average, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.abs(np.log(np.maximum(predicted, 0.0)) - np.log(average))
    measurable = (average > 0) & np.isfinite(average) & np.isfinite(predicted)
    return np.where(measurable, errors, np.nan)


def log_error(predicted: ArrayLike, average: ArrayLike) -> float:
    """Mean of `log_errors`; infinite if one of them is.

    >>> round(log_error([1.0, 2.0], [1.0, 1.0]), 4)
    0.3466
    """
    return mean_of_errors(log_errors(predicted, average))


def mean_of_errors(errors: ArrayLike) -> float:
    """Mean over the steps that have an error; infinite if one is, NaN if none has.

    >>> mean_of_errors([1.0, 3.0, float("nan")]), mean_of_errors([1.0, float("inf")])
    (2.0, inf)
    """
    defined = np.asarray(errors, dtype=np.float64)
    defined = defined[~np.isnan(defined)]
    return float(defined.mean()) if len(defined) else np.nan


def absolute_error(predicted: ArrayLike, average: ArrayLike) -> float:
    """Mean absolute error, mean_t |p_t - x̄_t|, in the quantity's unit.

    >>> absolute_error([2.0, 2.0], [1.5, 2.25])
    0.375
    """
    return mean_value(np.abs(np.asarray(predicted, np.float64) - np.asarray(average, np.float64)))


def relative_error(predicted: ArrayLike, average: ArrayLike) -> float:
    """Mean absolute error relative to the mean: Σ_t |p_t - x̄_t| / Σ_t x̄_t.

    For quantities that start from zero, such as the oscillation's variance, where a logarithm
    would be dominated by the instant at which the oscillation sets in. 1 is the error of always
    predicting zero. NaN if the average is zero throughout.

    >>> relative_error([1.0, 1.0], [1.0, 2.0])
    0.3333333333333333
    """
    predicted = np.asarray(predicted, dtype=np.float64)
    average = np.asarray(average, dtype=np.float64)
    keep = np.isfinite(predicted) & np.isfinite(average)
    total = float(average[keep].sum())
    return float(np.abs(predicted[keep] - average[keep]).sum() / total) if total > 0 else np.nan


def edge_fraction(average_sharpness: ArrayLike) -> float:
    """Fraction of steps at the edge of stability.

    A step counts if the optimizer's time-averaged effective sharpness is at least the threshold
    (1.95; the edge is at 2). The average is taken because the sharpness at the iterates themselves
    swings about 2 from step to step. Steps without an average are left out.

    >>> edge_fraction([1.0, 1.96, 2.1, float("nan")])
    0.6666666666666666
    """
    average = np.asarray(average_sharpness, dtype=np.float64)
    defined = np.isfinite(average)
    return float(np.mean(average[defined] >= EDGE_THRESHOLD)) if defined.any() else np.nan


def steps_near_edge(step: ArrayLike, sharpness: ArrayLike) -> float:
    """How long the effective sharpness stays within 2% of 2: the number of optimizer steps.

    Recorded steps within the band, times the distance between records. NaN if the sharpness is
    never defined.

    >>> steps_near_edge([0, 5, 10], [1.0, 1.97, 2.03])
    10.0
    """
    step = np.asarray(step)
    sharpness = np.asarray(sharpness, dtype=np.float64)
    if not np.isfinite(sharpness).any():
        return np.nan
    spacing = float(step[1] - step[0]) if len(step) > 1 else 1.0
    band = NEAR_EDGE * EDGE * (1 + 1e-9)  # its ends belong to it
    within = np.abs(sharpness - EDGE) <= band
    return float(np.sum(within)) * spacing


def log_log_fit(x: ArrayLike, y: ArrayLike) -> LogLogFit:
    """Line of log y on log x by least squares, over the points where both are positive.

    Used with predicted variances x and measured ones y: slope 1 means that the prediction has the
    right scaling, R² the share of the variance (of the logarithm) that it explains. NaN with fewer
    than three points or without spread.

    >>> fit = log_log_fit([1.0, 2.0, 4.0], [2.0, 4.0, 8.0])
    >>> round(fit.slope, 6), round(fit.r2, 6), fit.points
    (1.0, 1.0, 3)
    """
    x, y = np.ravel(np.asarray(x, np.float64)), np.ravel(np.asarray(y, np.float64))
    keep = (x > 0) & (y > 0) & np.isfinite(x) & np.isfinite(y)
    points = int(keep.sum())
    log_x, log_y = np.log(x[keep]), np.log(y[keep])
    if points < 3 or np.ptp(log_x) == 0:
        return LogLogFit(np.nan, np.nan, points)
    dx, dy = log_x - log_x.mean(), log_y - log_y.mean()
    slope = float(dx @ dy / (dx @ dx))
    r2 = float((dx @ dy) ** 2 / ((dx @ dx) * (dy @ dy))) if dy @ dy > 0 else np.nan
    return LogLogFit(slope, r2, points)
