"""The oscillation's variance along Σ's eigenvectors, predicted against measured."""

from __future__ import annotations

from analysis.measure.formulas import LogLogFit, log_log_fit, relative_error
from analysis.measure.metric import metric
from analysis.measure.side_by_side import SideBySide
from analysis.measure.smoothing import window_records
from analysis.measure.variances import OSCILLATION, directions, independent, total
from analysis.read import Floats


def _series(run: SideBySide) -> tuple[Floats, Floats]:
    return directions(*(run.average_in_common(name) for name in OSCILLATION))


def _fit(run: SideBySide) -> LogLogFit:
    predicted, measured = run.once(_series)
    every = window_records(run.step, run.bandwidth)
    return log_log_fit(*independent(predicted, measured, every))


def _points(run: SideBySide) -> float:
    return float(run.once(_fit).points)


@metric(label="variance error", head="var error", reads=OSCILLATION, smoothed=True)
def variance_error(run: SideBySide) -> float:
    """Mean |tr X - time-averaged squared displacement| / its mean, along Σ's eigenvectors."""
    predicted, measured = run.once(_series)
    return relative_error(total(predicted), total(measured))


@metric(label="covariance slope", reads=OSCILLATION, is_error=False, smoothed=True, shown_in=())
def covariance_slope(run: SideBySide) -> float:
    """Slope of log measured against log predicted variance per eigenvector of Σ; 1 is right."""
    return run.once(_fit).slope


@metric(
    label="covariance R²", reads=OSCILLATION, is_error=False, smoothed=True, bounds=(0.0, 1.0),
    shown_in=(), also={"covariance_points": _points},
)  # fmt: skip
def covariance_r2(run: SideBySide) -> float:
    """R² of the fit of log measured on log predicted variance."""
    return run.once(_fit).r2
