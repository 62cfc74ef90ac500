"""The metrics that `accuracy` reports: names, units, short labels and meanings.

The only place that lists them; the terminal's legend, the report and the exported tables' units are
all taken from here.
"""

from __future__ import annotations

from dataclasses import dataclass

KEYS = ("workload", "workload_options", "criterion", "rule", "lr")
"""What makes a cell: runs that agree in these differ in their seed only."""

CONFIGURATION = (
    "workload", "workload_options", "criterion", "rule", "lr", "beta2", "eps", "bias_correction",
    "schedule", "flows", "warmup", "steps", "substeps", "scheme", "num_eigs", "record_every",
    "dtype",
)  # fmt: skip
"""Every column of `runs` that belongs to the configuration, but for the seed."""


@dataclass(frozen=True)
class Metric:
    """One metric of a run × flow.

    `is_error` says that it is an error, so that smaller is better.
    """

    name: str
    unit: str
    label: str
    meaning: str
    is_error: bool = True


METRICS: tuple[Metric, ...] = (
    Metric("final_distance", "", "final distance", "‖w_t - w(t)‖ / ‖w_t - w_0‖ at the last step"),
    Metric("mean_distance", "", "mean distance", "the same, mean over all steps"),
    Metric("edge_distance", "", "distance at the edge", "the same, mean at the edge of stability"),
    Metric(
        "final_distance_midpoint", "", "final distance to midpoints",
        "‖m_t - w(t)‖ / ‖w_t - w_0‖ at the last step, to m_t = ¼(w_{t-1} + 2w_t + w_{t+1}): "
        "the oscillation is taken out",
    ),
    Metric(
        "mean_distance_midpoint", "", "mean distance to midpoints", "the same, mean over all steps"
    ),
    Metric(
        "edge_distance_midpoint", "", "distance to midpoints at the edge",
        "the same, mean at the edge of stability",
    ),
    Metric(
        "ratio_to_stable", "", "distance / stable's",
        "distance to the optimizer over the stable flow's, at the last step that both have",
    ),
    Metric(
        "ratio_to_stable_midpoint", "", "midpoint distance / stable's",
        "the same with the distances to the midpoints",
    ),
    Metric(
        "horizon", "steps", "prediction horizon",
        "first step whose relative distance is above the tolerance (5% unless stated)", False,
    ),
    Metric(
        "horizon_lasting", "steps", "lasting horizon",
        "step from which on the relative distance stays above the tolerance, to the end of the run",
        False,
    ),
    Metric(
        "horizon_midpoint", "steps", "horizon to midpoints",
        "first step whose relative distance to the midpoints is above the tolerance: one swing of "
        "the optimizer early on does not end it", False,
    ),
    Metric(
        "log_loss_error", "", "log(loss) error",
        "mean |log predicted loss - log time-averaged loss|; 0.01 is about 1%",
    ),
    Metric(
        "sharpness_error", "", "sharpness error",
        "mean |flow's effective sharpness - optimizer's time average|; the edge is at 2",
    ),
    Metric(
        "grad_norm_error", "", "log |g|² error",
        "mean |log predicted squared gradient norm - log of its time average|",
    ),
    Metric("nu_error", "", "ν error", "mean of |ν - ν_optimizer| / |ν_optimizer|"),
    Metric(
        "variance_error", "", "variance error",
        "mean |tr X - time-averaged squared displacement| / its mean, along Σ's eigenvectors",
    ),
    Metric(
        "covariance_slope", "", "covariance slope",
        "slope of log measured against log predicted variance per eigenvector of Σ; 1 is right",
        False,
    ),
    Metric("covariance_r2", "", "covariance R²", "R² of that fit", False),
    Metric(
        "output_error", "output", "output distance",
        "mean over steps of the RMS distance of network outputs on the probe batch",
    ),
    Metric(
        "train_accuracy_error", "", "train-accuracy error",
        "mean |flow's training accuracy - optimizer's time average|",
    ),
    Metric(
        "test_accuracy_error", "", "test-accuracy error",
        "mean |flow's test accuracy - optimizer's time average|",
    ),
    Metric(
        "test_loss_error", "", "log(test loss) error",
        "mean |log flow's test loss - log of the optimizer's time average|",
    ),
    Metric(
        "edge_fraction", "", "time at the edge",
        "fraction of steps at which the optimizer's time-averaged effective sharpness is >= 1.95",
        False,
    ),
    Metric(
        "mean_num_critical", "", "critical directions",
        "mean number of the flow's effective eigenvalues above the critical threshold", False,
    ),
    Metric(
        "near_edge_steps", "steps", "flow within 2% of 2",
        "steps at which the flow's effective sharpness is within 2% of 2, of those at which the "
        "optimizer's time average exists", False,
    ),
    Metric(
        "near_edge_steps_optimizer", "steps", "optimizer within 2% of 2",
        "steps at which the optimizer's time-averaged effective sharpness is within 2% of 2", False,
    ),
    Metric(
        "unconverged_fraction", "", "unconverged",
        "fraction of the flow's steps whose eigensolver or complementarity solver did not converge",
        False,
    ),
)  # fmt: skip

BY_NAME = {m.name: m for m in METRICS}
ERRORS = tuple(m.name for m in METRICS if m.is_error)
HORIZONS = ("horizon", "horizon_lasting", "horizon_midpoint")
"""Censored metrics: a column `<name>_observed` goes with each."""
SMOOTHED = (
    "log_loss_error", "sharpness_error", "grad_norm_error", "variance_error", "covariance_slope",
    "covariance_r2", "edge_distance", "edge_distance_midpoint", "train_accuracy_error",
    "test_accuracy_error", "test_loss_error", "edge_fraction", "near_edge_steps",
    "near_edge_steps_optimizer",
)  # fmt: skip
"""All metrics that depend on the time average's bandwidth."""


def metric(name: str) -> Metric:
    """Look a metric up by name. Raises `ValueError` naming those that exist.

    >>> metric("horizon").unit
    'steps'
    """
    if name not in BY_NAME:
        raise ValueError(f"metric must be one of {sorted(BY_NAME)}, got {name!r}")
    return BY_NAME[name]
