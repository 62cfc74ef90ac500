"""How long the optimizer takes, once past the edge, until it oscillates as the flow predicts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.measure.formulas import EDGE, Horizon
from analysis.measure.metric import metric
from analysis.measure.side_by_side import SideBySide
from analysis.measure.variances import OSCILLATION, directions, total
from analysis.read import MAIN_FLOW, Floats

BANDWIDTH = 5.0  # steps: narrower than a delay, wider than the oscillation's period of two
FLOOR = 0.05  # of the median predicted variance; below, Σ has only begun and any drift exceeds it


def crossing(step: NDArray, sharpness: NDArray[np.float64]) -> float:
    """Step at which the effective sharpness is first at least 2.

    NaN if it never is, or already at the first record, so that the crossing was not seen.

    >>> crossing(np.arange(4), np.array([1.8, 1.9, 2.1, 1.9]))
    2.0
    """
    beyond = np.flatnonzero(sharpness >= EDGE)
    return float(step[beyond[0]]) if len(beyond) and beyond[0] > 0 else np.nan


@metric(
    label="delay of the oscillation", unit="steps", head="delay", is_error=False, censored=True,
    reads=(*OSCILLATION, "effective_sharpness"), per_run=True, shown_in=(),
)  # fmt: skip
def delay(run: SideBySide) -> Horizon:
    """Delay (steps) from the optimizer's crossing of 2 until it oscillates as predicted.

    The first record from which on its squared displacement along the eigenvectors of the central
    flow's Σ, averaged over 5 steps and summed, is as large as tr X. Just above the edge an
    oscillation grows out of rounding, by log(s - 1) a step, and may take a hundred steps. Censored
    where it never does; undefined where the run begins beyond the edge or never comes to it.
    """
    start = crossing(run.optimizer_step, run.whole_optimizer("effective_sharpness"))
    columns = run.columns_of(MAIN_FLOW, OSCILLATION)
    if np.isnan(start) or columns is None:
        return Horizon(np.nan, False)
    averages = (run.average_of(MAIN_FLOW, name, BANDWIDTH) for name in OSCILLATION)
    return oscillation_delay(columns["step"], *directions(*averages), start)


def oscillation_delay(step: NDArray, variances: Floats, squares: Floats, start: float) -> Horizon:
    """Count the steps from `start` until the squared displacement is as large as predicted.

    Args:
        step: of the flow (n,).
        variances: along the eigenvectors of Σ (n, k), from `variance_series`.
        squares: of the displacement along them (n, k), averaged over `BANDWIDTH` steps.
        start: step from which on it is counted.
    """
    if not (step >= start).any():
        return Horizon(np.nan, False)
    predicted, measured = total(variances), total(squares)
    some = (step >= start) & (predicted > 0)
    enough = FLOOR * float(np.median(predicted[some])) if some.any() else np.inf
    reached = np.flatnonzero(some & (predicted >= enough) & (measured >= predicted))
    if not len(reached):
        return Horizon(float(step[-1]) - start, False)
    return Horizon(float(step[reached[0]]) - start, True)
