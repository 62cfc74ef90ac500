"""The edge of stability: how long the optimizer and the flow are there."""

from __future__ import annotations

import math

import numpy as np

from analysis.measure import formulas
from analysis.measure.metric import metric
from analysis.measure.side_by_side import SideBySide

_SHARPNESS = ("effective_sharpness",)
_NOT_NEGATIVE = (0.0, math.inf)


@metric(
    label="time at the edge", head="at edge", reads=_SHARPNESS, is_error=False, smoothed=True,
    per_run=True, percent=True, bounds=(0.0, 1.0),
)  # fmt: skip
def edge_fraction(run: SideBySide) -> float:
    """Fraction of steps at which the optimizer's time-averaged effective sharpness is >= 1.95."""
    return formulas.edge_fraction(run.whole_average("effective_sharpness"))


@metric(
    label="peak of the sharpness", reads=_SHARPNESS, is_error=False, per_run=True,
    bounds=_NOT_NEGATIVE, shown_in=(),
)  # fmt: skip
def peak_sharpness(run: SideBySide) -> float:
    """Largest effective sharpness of the optimizer: how far it passes the edge before it swings.

    Of the steps themselves, not of their time average; the row with which it diverged is none.
    """
    sharpness = run.whole_optimizer("effective_sharpness")
    return float(np.nanmax(sharpness)) if np.isfinite(sharpness).any() else np.nan


@metric(
    label="critical directions", reads=("num_critical",), is_error=False, bounds=_NOT_NEGATIVE,
    shown_in=(),
)  # fmt: skip
def mean_num_critical(run: SideBySide) -> float:
    """Mean number of the flow's effective eigenvalues above the critical threshold."""
    return formulas.mean_value(run.flow("num_critical"))


@metric(
    label="flow within 2% of 2", unit="steps", reads=_SHARPNESS, is_error=False, smoothed=True,
    bounds=_NOT_NEGATIVE, shown_in=(),
)  # fmt: skip
def near_edge_steps(run: SideBySide) -> float:
    """Time (steps) during which the flow's average effective sharpness is within 2% of 2.

    Averaged as the optimizer's is: else a flow could be near the edge for longer than an optimizer
    that it follows exactly.
    """
    known = np.isfinite(run.average("effective_sharpness"))
    sharpness = np.where(known, run.flow_average("effective_sharpness"), np.nan)
    return formulas.steps_near_edge(run.step, sharpness)


@metric(
    label="optimizer within 2% of 2", unit="steps", reads=_SHARPNESS, is_error=False,
    smoothed=True, per_run=True, bounds=_NOT_NEGATIVE, shown_in=(),
)  # fmt: skip
def near_edge_steps_optimizer(run: SideBySide) -> float:
    """Time (steps) during which the optimizer's average effective sharpness is within 2% of 2."""
    average = run.whole_average("effective_sharpness")
    return formulas.steps_near_edge(run.optimizer_step, average)
