"""The network that a flow arrives at: its outputs, accuracies and test loss."""

from __future__ import annotations

from analysis.measure.metric import metric
from analysis.measure.side_by_side import SideBySide


@metric(label="output distance", unit="output", reads=("output_distance",), shown_in=())
def output_error(run: SideBySide) -> float:
    """Mean over steps of the RMS distance of network outputs on the probe batch."""
    return run.recorded_error("output_distance")


@metric(
    label="train-accuracy error", reads=("train_accuracy",), smoothed=True, bounds=(0.0, 1.0),
    shown_in=(),
)  # fmt: skip
def train_accuracy_error(run: SideBySide) -> float:
    """Mean |flow's training accuracy - optimizer's|, time averages both."""
    return run.absolute_error("train_accuracy")


@metric(
    label="test-accuracy error", reads=("test_accuracy",), smoothed=True, bounds=(0.0, 1.0),
    shown_in=(),
)  # fmt: skip
def test_accuracy_error(run: SideBySide) -> float:
    """Mean |flow's test accuracy - optimizer's|, time averages both."""
    return run.absolute_error("test_accuracy")


@metric(
    label="log(test loss) error", reads=("test_loss", "test_loss_predicted"), smoothed=True,
    shown_in=(),
)  # fmt: skip
def test_loss_error(run: SideBySide) -> float:
    """Mean |log predicted test loss - log test loss|, time averages both."""
    return run.log_error("test_loss")
