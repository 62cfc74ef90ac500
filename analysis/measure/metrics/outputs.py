"""The network that a flow arrives at: its outputs, accuracies and test loss."""

from __future__ import annotations

from analysis.measure.formulas import absolute_error, log_error, mean_value
from analysis.measure.metric import metric
from analysis.measure.side_by_side import SideBySide


@metric(label="output distance", unit="output", reads=("output_distance",), shown_in=())
def output_error(run: SideBySide) -> float:
    """Mean over steps of the RMS distance of network outputs on the probe batch."""
    return mean_value(run.flow("output_distance"))


@metric(label="train-accuracy error", reads=("train_accuracy",), smoothed=True, shown_in=())
def train_accuracy_error(run: SideBySide) -> float:
    """Mean |flow's training accuracy - optimizer's time average|."""
    return absolute_error(run.flow("train_accuracy"), run.average("train_accuracy"))


@metric(label="test-accuracy error", reads=("test_accuracy",), smoothed=True, shown_in=())
def test_accuracy_error(run: SideBySide) -> float:
    """Mean |flow's test accuracy - optimizer's time average|."""
    return absolute_error(run.flow("test_accuracy"), run.average("test_accuracy"))


@metric(label="log(test loss) error", reads=("test_loss",), smoothed=True, shown_in=())
def test_loss_error(run: SideBySide) -> float:
    """Mean |log flow's test loss - log of the optimizer's time average|."""
    return log_error(run.flow("test_loss"), run.average("test_loss"))
