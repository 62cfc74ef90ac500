"""Whether the numbers can be trusted: steps with a doubt, and those of an unconverged solver."""

from __future__ import annotations

import numpy as np

from analysis.measure.metric import metric
from analysis.measure.side_by_side import SideBySide
from cflows_ray.schema import StepStatus

_UNCONVERGED = (StepStatus.EIG_UNCONVERGED.word, StepStatus.SDCP_UNCONVERGED.word)


@metric(
    label="unconverged", reads=("status",), is_error=False, bounds=(0.0, 1.0), shown_in=()
)  # fmt: skip
def unconverged_fraction(run: SideBySide) -> float:
    """Fraction of steps at which the flow's eigensolver or complementarity solver failed."""
    status = run.flow("status")
    return float(np.isin(status, _UNCONVERGED).mean()) if len(status) else np.nan


@metric(
    label="doubtful", reads=("doubt", "status"), is_error=False, bounds=(0.0, 1.0), shown_in=()
)  # fmt: skip
def doubtful_fraction(run: SideBySide) -> float:
    """Fraction of steps at which the flow's own row says that it may mean nothing."""
    status, doubt = run.flow("status"), run.flow("doubt")
    if not len(status):
        return np.nan
    # in files from before, no row has a doubt of its own
    is_said = doubt != "" if doubt.dtype.kind == "U" else np.zeros(len(status), dtype=bool)
    return float((is_said | np.isin(status, _UNCONVERGED)).mean())
