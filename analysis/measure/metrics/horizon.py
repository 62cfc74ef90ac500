"""How long a prediction holds: the horizons, which the end of a run may cut short."""

from __future__ import annotations

from analysis.measure.formulas import Horizon, prediction_horizon
from analysis.measure.metric import metric
from analysis.measure.side_by_side import SideBySide


def _horizon(run: SideBySide, *, to: str = "discrete", lasting: bool = False) -> Horizon:
    return prediction_horizon(
        run.step, run.distance(to), tolerance=run.tolerance, stopped=run.ended, lasting=lasting
    )


@metric(
    label="prediction horizon", unit="steps", head="horizon first", is_error=False, censored=True,
    reads=("distance_to_discrete", "distance_from_start"), shown_in=(),
)  # fmt: skip
def horizon(run: SideBySide) -> Horizon:
    """First step whose relative distance is above the tolerance (5% unless stated)."""
    return _horizon(run)


@metric(
    label="lasting horizon", unit="steps", head="horizon lasting", is_error=False, censored=True,
    reads=("distance_to_discrete", "distance_from_start"),
)  # fmt: skip
def horizon_lasting(run: SideBySide) -> Horizon:
    """Step from which on the relative distance stays above the tolerance, to the end of the run."""
    return _horizon(run, lasting=True)


@metric(
    label="horizon to midpoints", unit="steps", head="horizon midpoint", is_error=False,
    censored=True, reads=("distance_to_midpoint", "distance_from_start"), shown_in=(),
)  # fmt: skip
def horizon_midpoint(run: SideBySide) -> Horizon:
    """First step whose relative distance to the midpoints is above the tolerance.

    One swing of the optimizer early on does not end it.
    """
    return _horizon(run, to="midpoint")
