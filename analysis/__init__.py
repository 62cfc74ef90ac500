"""Statistics and figures over the Parquet results of `cflows_ray`. Never imports JAX or Ray.

    import analysis
    results = analysis.load("results/quickstart")
    frame = analysis.accuracy(results)                 # one row per run × flow
    analysis.summarize(frame, by=["rule", "lr"])       # means and 95% intervals over seeds
    analysis.compare(frame, "central", "stable", by=["rule"])
    analysis.plot_accuracy(frame.query("rule == 'rmsprop'"))

Rooms, each importing only from those before it: `read` (tables in), `measure` (numbers of a run),
`infer` (intervals and tests over runs), `draw` (figures), `report` (pages).

`python -m analysis results/quickstart` prints the table and writes the report.
"""

from typing import Any

from analysis.draw import (
    plot_accuracy,
    plot_cells,
    plot_covariance,
    plot_distance,
    plot_distance_spread,
    plot_horizons,
    plot_loss,
    plot_profiles,
    plot_sharpness,
    plot_skill,
    plot_variance,
)
from analysis.infer import (
    Ranking,
    compare,
    covariance_fit,
    lr_trend,
    rank,
    skill,
    summarize,
    trends,
)
from analysis.measure import (
    Metric,
    SideBySide,
    Study,
    accuracy,
    all_metrics,
    bandwidth_sensitivity,
    covariance_points,
    metric,
    ratio_to,
    register_metric,
    study,
    without_doubtful,
)
from analysis.read import Results, ResultsError, load

METRICS: tuple[Metric, ...]
"""All metrics, those registered from outside included."""

__all__ = [
    "METRICS",
    "Metric",
    "Ranking",
    "Results",
    "ResultsError",
    "SideBySide",
    "Study",
    "accuracy",
    "bandwidth_sensitivity",
    "compare",
    "covariance_fit",
    "covariance_points",
    "load",
    "lr_trend",
    "metric",
    "plot_accuracy",
    "plot_cells",
    "plot_covariance",
    "plot_distance",
    "plot_distance_spread",
    "plot_horizons",
    "plot_loss",
    "plot_profiles",
    "plot_sharpness",
    "plot_skill",
    "plot_variance",
    "rank",
    "ratio_to",
    "register_metric",
    "skill",
    "study",
    "summarize",
    "trends",
    "without_doubtful",
]


def __getattr__(name: str) -> Any:
    if name == "METRICS":  # asked for each time, because metrics can be registered at any time
        return all_metrics()
    raise AttributeError(f"module 'analysis' has no attribute {name!r}")
