"""Statistics and figures over the Parquet results of `cflows_ray`. Never imports JAX or Ray.

    import analysis
    results = analysis.load("results/quickstart")
    frame = analysis.accuracy(results)                 # one row per run × flow
    analysis.summarize(frame, by=["rule", "lr"])       # means and 95% intervals over seeds
    analysis.compare(frame, "central", "stable", by=["rule"])
    analysis.plot_accuracy(frame.query("rule == 'rmsprop'"))

`python -m analysis results/quickstart` prints the table and writes the report.
"""

from analysis.aggregate import summarize
from analysis.columns import METRICS, Metric
from analysis.compare import compare, lr_trend
from analysis.covariance import covariance_fit, covariance_points
from analysis.plots import plot_distance, plot_loss, plot_sharpness, plot_variance
from analysis.scoring import accuracy, bandwidth_sensitivity
from analysis.storage import ResultsError
from analysis.study import Study, study
from analysis.sweep_plots import (
    plot_accuracy,
    plot_covariance,
    plot_distance_spread,
    plot_horizons,
)
from analysis.tables import Results, load

__all__ = [
    "METRICS",
    "Metric",
    "Results",
    "ResultsError",
    "Study",
    "accuracy",
    "bandwidth_sensitivity",
    "compare",
    "covariance_fit",
    "covariance_points",
    "load",
    "lr_trend",
    "plot_accuracy",
    "plot_covariance",
    "plot_distance",
    "plot_distance_spread",
    "plot_horizons",
    "plot_loss",
    "plot_sharpness",
    "plot_variance",
    "study",
    "summarize",
]
