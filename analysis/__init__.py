"""Statistics and figures over the Parquet results of `cflows_ray`. Never imports JAX or Ray.

    import analysis
    results = analysis.load("results/quickstart")
    frame = analysis.accuracy(results)                 # one row per run × flow
    analysis.summarize(frame, by=["rule", "lr"])       # means and 95% intervals over seeds
    analysis.compare(frame, "central", "stable", by=["rule"])

`python -m analysis results/quickstart` prints the table and writes the report.
"""

from analysis.columns import METRICS, Metric
from analysis.scoring import accuracy, bandwidth_sensitivity
from analysis.storage import ResultsError
from analysis.tables import Results, load

__all__ = [
    "METRICS",
    "Metric",
    "Results",
    "ResultsError",
    "accuracy",
    "bandwidth_sensitivity",
    "load",
]
