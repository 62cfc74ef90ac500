"""The metrics, one subject a file: hands out `METRICS`, the registry of them all.

A further one of the package is one declaration and one line here; one from outside is given to
`register_metric`, or found by an entry point of the group `cflows_ray.metrics`. The order is that
of columns and tables.
"""

from __future__ import annotations

from analysis.measure.metric import Metric
from cflows_ray.registry import Registry

__all__ = ["METRICS", "all_metrics", "find_metric", "register_metric"]

_HERE = "analysis.measure.metrics"

METRICS: Registry[Metric] = Registry(
    "metric",
    "cflows_ray.metrics",
    {
        "final_distance": f"{_HERE}.distance:final_distance",
        "mean_distance": f"{_HERE}.distance:mean_distance",
        "edge_distance": f"{_HERE}.distance:edge_distance",
        "final_distance_midpoint": f"{_HERE}.distance:final_distance_midpoint",
        "mean_distance_midpoint": f"{_HERE}.distance:mean_distance_midpoint",
        "edge_distance_midpoint": f"{_HERE}.distance:edge_distance_midpoint",
        "ratio_to_stable": f"{_HERE}.distance:ratio_to_stable",
        "ratio_to_stable_midpoint": f"{_HERE}.distance:ratio_to_stable_midpoint",
        "horizon": f"{_HERE}.horizon:horizon",
        "horizon_lasting": f"{_HERE}.horizon:horizon_lasting",
        "horizon_midpoint": f"{_HERE}.horizon:horizon_midpoint",
        "log_loss_error": f"{_HERE}.loss_and_curvature:log_loss_error",
        "sharpness_error": f"{_HERE}.loss_and_curvature:sharpness_error",
        "grad_norm_error": f"{_HERE}.loss_and_curvature:grad_norm_error",
        "nu_error": f"{_HERE}.loss_and_curvature:nu_error",
        "variance_error": f"{_HERE}.variance:variance_error",
        "covariance_slope": f"{_HERE}.variance:covariance_slope",
        "covariance_r2": f"{_HERE}.variance:covariance_r2",
        "output_error": f"{_HERE}.outputs:output_error",
        "train_accuracy_error": f"{_HERE}.outputs:train_accuracy_error",
        "test_accuracy_error": f"{_HERE}.outputs:test_accuracy_error",
        "test_loss_error": f"{_HERE}.outputs:test_loss_error",
        "edge_fraction": f"{_HERE}.edge:edge_fraction",
        "peak_sharpness": f"{_HERE}.edge:peak_sharpness",
        "mean_num_critical": f"{_HERE}.edge:mean_num_critical",
        "near_edge_steps": f"{_HERE}.edge:near_edge_steps",
        "near_edge_steps_optimizer": f"{_HERE}.edge:near_edge_steps_optimizer",
        "delay": f"{_HERE}.delay:delay",
        "unconverged_fraction": f"{_HERE}.solvers:unconverged_fraction",
        "doubtful_fraction": f"{_HERE}.solvers:doubtful_fraction",
    },
)


def register_metric(metric: Metric) -> None:
    """Add a metric from outside the package; from then on it is in every table and report.

    Raises `ValueError` for anything but a `Metric`, and for the name of one of the package's own.

    >>> register_metric("beauty")
    Traceback (most recent call last):
    ValueError: metric must be what the decorator analysis.metric makes, got 'beauty'
    """
    if not isinstance(metric, Metric):
        raise ValueError(f"metric must be what the decorator analysis.metric makes, got {metric!r}")
    METRICS.register(metric.name, metric)


def find_metric(name: str) -> Metric:
    """Look a metric up by name. Raises `ValueError` naming those that exist.

    >>> find_metric("horizon").unit
    'steps'
    """
    found = METRICS[name]
    if not isinstance(found, Metric) or found.name != name:
        raise ValueError(f"metric must be a Metric of the name {name!r}, got {found!r}")
    return found


def all_metrics() -> tuple[Metric, ...]:
    """Return every metric, in order.

    >>> [m.name for m in all_metrics() if m.censored]
    ['horizon', 'horizon_lasting', 'horizon_midpoint', 'delay']
    """
    return tuple(find_metric(name) for name in METRICS)
