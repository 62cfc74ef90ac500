"""Numbers of a run: metrics of each flow, time averages, and all of a study in one pass.

Hands out these functions and what they go by unless told: `EDGE` and `EDGE_THRESHOLD` (effective
sharpness at the edge, and from which on it counts as there), `DEFAULT_TOLERANCE` (of horizons),
`DEFAULT_BANDWIDTH` and `TRUNCATE` (of time averages), `SAMPLED_RUNS` (of which a study has more
than metrics), `DOUBTFUL_SHARE` (of rows, above which a run is doubtful), `PHASES` of training (of
forecasts), `TARGETS` that flows may be near to, in words, `CLAIMS` of flows' authors and
`NO_CLAIM`, that of any other flow, and `Frames`, what is scored where there is no folder.
"""

from analysis.measure.accuracy import accuracy, bandwidth_sensitivity, smoothed_metrics
from analysis.measure.claims import CLAIMS, NO_CLAIM, TARGETS
from analysis.measure.doubt import DOUBTFUL_SHARE, is_doubtful, without_doubtful
from analysis.measure.forecasts import PHASES, forecast_errors
from analysis.measure.formulas import (
    DEFAULT_TOLERANCE,
    EDGE,
    EDGE_THRESHOLD,
    Horizon,
    absolute_error,
    final_value,
    log_error,
    mean_value,
    relative_distance,
    relative_error,
)
from analysis.measure.frames import Frames
from analysis.measure.metric import Metric, metric
from analysis.measure.metrics import all_metrics, find_metric, register_metric
from analysis.measure.metrics.distance import ratio_to
from analysis.measure.one_pass import SAMPLED_RUNS, Study, some_runs, study
from analysis.measure.scoring import accuracy_frame
from analysis.measure.side_by_side import SideBySide, predicted
from analysis.measure.smoothing import DEFAULT_BANDWIDTH, TRUNCATE, half_window, time_average
from analysis.measure.variances import covariance_points, total, variance_series

__all__ = [
    "CLAIMS",
    "DEFAULT_BANDWIDTH",
    "DEFAULT_TOLERANCE",
    "DOUBTFUL_SHARE",
    "EDGE",
    "EDGE_THRESHOLD",
    "NO_CLAIM",
    "PHASES",
    "SAMPLED_RUNS",
    "TARGETS",
    "TRUNCATE",
    "Frames",
    "Horizon",
    "Metric",
    "SideBySide",
    "Study",
    "absolute_error",
    "accuracy",
    "accuracy_frame",
    "all_metrics",
    "bandwidth_sensitivity",
    "covariance_points",
    "final_value",
    "find_metric",
    "forecast_errors",
    "half_window",
    "is_doubtful",
    "log_error",
    "mean_value",
    "metric",
    "predicted",
    "ratio_to",
    "register_metric",
    "relative_distance",
    "relative_error",
    "smoothed_metrics",
    "some_runs",
    "study",
    "time_average",
    "total",
    "variance_series",
    "without_doubtful",
]
