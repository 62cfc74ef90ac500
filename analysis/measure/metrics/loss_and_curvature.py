"""Errors of a flow's predictions of the optimizer's time averages: loss, gradient, curvature, ν."""

from __future__ import annotations

from analysis.measure.metric import metric
from analysis.measure.side_by_side import SideBySide


@metric(
    label="log(loss) error", head="loss error", reads=("train_loss", "train_loss_predicted"),
    smoothed=True, shown_in=("summary", "comparison", "trend"),
)  # fmt: skip
def log_loss_error(run: SideBySide) -> float:
    """Mean |log predicted loss - log loss|, time averages both; 0.01 is about 1%."""
    return run.log_error("train_loss")


@metric(
    label="sharpness error", head="sharp error", reads=("effective_sharpness",), smoothed=True,
    shown_in=("summary", "trend"),
)  # fmt: skip
def sharpness_error(run: SideBySide) -> float:
    """Mean |flow's effective sharpness - optimizer's|, time averages both; the edge is at 2."""
    return run.absolute_error("effective_sharpness")


@metric(
    label="log |g|² error", head="|g|² error", reads=("grad_norm_sq", "grad_norm_sq_predicted"),
    smoothed=True,
)  # fmt: skip
def grad_norm_error(run: SideBySide) -> float:
    """Mean |log predicted squared gradient norm - log optimizer's|, time averages both."""
    return run.log_error("grad_norm_sq")


@metric(label="ν error", head="ν error", reads=("nu_rel_error",))
def nu_error(run: SideBySide) -> float:
    """Mean of |ν - ν_optimizer| / |ν_optimizer|."""
    return run.recorded_error("nu_rel_error")
