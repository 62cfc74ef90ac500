"""The oscillation's variance along Σ's eigenvectors, predicted against measured."""

from __future__ import annotations

from analysis.measure.formulas import LogLogFit, log_log_fit, relative_error
from analysis.measure.metric import metric
from analysis.measure.side_by_side import SideBySide
from analysis.measure.smoothing import window_records
from analysis.measure.variances import independent, total, variance_series
from analysis.read import Floats

_READS = ("sigma_eigs", "displacement_sq")


def _series(run: SideBySide) -> tuple[Floats, Floats]:
    columns = {name: run.flow(name) for name in ("step", *_READS)}
    return variance_series(columns, run.bandwidth)


def _fit(run: SideBySide) -> LogLogFit:
    predicted, measured = run.once(_series)
    every = window_records(run.step, run.bandwidth)
    return log_log_fit(*independent(predicted, measured, every))


def _points(run: SideBySide) -> float:
    return float(run.once(_fit).points)


@metric(label="variance error", head="var error", reads=_READS, smoothed=True)
def variance_error(run: SideBySide) -> float:
    """Mean |tr X - time-averaged squared displacement| / its mean, along Σ's eigenvectors."""
    predicted, measured = run.once(_series)
    return relative_error(total(predicted), total(measured))


@metric(label="covariance slope", reads=_READS, is_error=False, smoothed=True, shown_in=())
def covariance_slope(run: SideBySide) -> float:
    """Slope of log measured against log predicted variance per eigenvector of Σ; 1 is right."""
    return run.once(_fit).slope


@metric(
    label="covariance R²", reads=_READS, is_error=False, smoothed=True, shown_in=(),
    also={"covariance_points": _points},
)  # fmt: skip
def covariance_r2(run: SideBySide) -> float:
    """R² of the fit of log measured on log predicted variance."""
    return run.once(_fit).r2
