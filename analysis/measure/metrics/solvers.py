"""Whether the numbers can be trusted: steps at which a solver of the flow did not converge."""

from __future__ import annotations

import numpy as np

from analysis.measure.metric import metric
from analysis.measure.side_by_side import SideBySide

_UNCONVERGED = ("eig_unconverged", "sdcp_unconverged")


@metric(label="unconverged", reads=("status",), is_error=False, shown_in=())
def unconverged_fraction(run: SideBySide) -> float:
    """Fraction of steps at which the flow's eigensolver or complementarity solver failed."""
    status = run.flow("status")
    return float(np.isin(status, _UNCONVERGED).mean()) if len(status) else np.nan
