"""How far a flow is from the optimizer, from its midpoints, and beside another flow."""

from __future__ import annotations

import numpy as np

from analysis.measure.formulas import (
    EDGE_THRESHOLD,
    final_value,
    mean_value,
    relative_distance,
)
from analysis.measure.metric import Metric, metric
from analysis.measure.side_by_side import SideBySide

_DISCRETE = ("distance_to_discrete", "distance_from_start")
_MIDPOINT = ("distance_to_midpoint", "distance_from_start")


def _at_edge(run: SideBySide) -> np.ndarray:
    return run.whole_average("effective_sharpness") >= EDGE_THRESHOLD


@metric(
    label="final distance", head="distance final %", reads=_DISCRETE, percent=True,
    shown_in=("summary", "comparison", "trend"),
)  # fmt: skip
def final_distance(run: SideBySide) -> float:
    """‖w_t - w(t)‖ / ‖w_t - w_0‖ at the last step."""
    return final_value(run.whole_distance())


@metric(
    label="mean distance", head="distance mean %", reads=_DISCRETE, percent=True,
    shown_in=("summary", "comparison"),
)  # fmt: skip
def mean_distance(run: SideBySide) -> float:
    """‖w_t - w(t)‖ / ‖w_t - w_0‖, mean over all steps."""
    return mean_value(run.whole_distance())


@metric(
    label="distance at the edge", reads=(*_DISCRETE, "effective_sharpness"), smoothed=True,
    percent=True, shown_in=(),
)  # fmt: skip
def edge_distance(run: SideBySide) -> float:
    """‖w_t - w(t)‖ / ‖w_t - w_0‖, mean at the edge of stability."""
    return mean_value(run.whole_distance(), where=_at_edge(run))


@metric(
    label="final distance to midpoints", head="midpoint final %", reads=_MIDPOINT, percent=True,
    shown_in=("summary", "comparison"),
)  # fmt: skip
def final_distance_midpoint(run: SideBySide) -> float:
    """Relative distance to the midpoints ¼(w_{t-1} + 2w_t + w_{t+1}), at the last step."""
    return final_value(run.whole_distance("midpoint"))


@metric(label="mean distance to midpoints", reads=_MIDPOINT, percent=True, shown_in=())
def mean_distance_midpoint(run: SideBySide) -> float:
    """Relative distance to the midpoints, mean over all steps."""
    return mean_value(run.whole_distance("midpoint"))


@metric(
    label="distance to midpoints at the edge", reads=(*_MIDPOINT, "effective_sharpness"),
    smoothed=True, percent=True, shown_in=(),
)  # fmt: skip
def edge_distance_midpoint(run: SideBySide) -> float:
    """Relative distance to the midpoints, mean at the edge of stability."""
    return mean_value(run.whole_distance("midpoint"), where=_at_edge(run))


def ratio_to(reference: str, to: str = "discrete") -> Metric:
    """Declare the metric of a flow's distance over that of a reference flow.

    Args:
        reference: name of the flow that is divided by.
        to: what the distances are to: `discrete` or `midpoint`.

    Each is the distance at the last step that both flows have; NaN in a run without the reference.

    >>> ratio_to("rod").name
    'ratio_to_rod'
    """
    midpoint = to == "midpoint"

    def function(run: SideBySide) -> float:
        both = run.beside(reference, f"distance_to_{to}")
        return np.nan if both is None else final_value(relative_distance(*both))

    return Metric(
        name=f"ratio_to_{reference}" + ("_midpoint" if midpoint else ""),
        unit="",
        label=f"{'midpoint distance' if midpoint else 'distance'} / {reference}'s",
        meaning=f"Distance to the {'midpoints' if midpoint else 'optimizer'} over the {reference} "
        "flow's, at the last step that both have.",
        reads=(f"distance_to_{to}",),
        function=function,
    )


ratio_to_stable = ratio_to("stable")
ratio_to_stable_midpoint = ratio_to("stable", "midpoint")
