"""A metric from outside."""

from __future__ import annotations

import numpy as np

import analysis


@analysis.metric(label="largest loss gap", unit="loss", reads=("train_loss",))
def loss_gap(run: analysis.SideBySide) -> float:
    """Largest |flow's loss - optimizer's loss| over all steps."""
    return float(np.nanmax(np.abs(run.flow("train_loss") - run.optimizer("train_loss"))))
