"""Runs whose numbers mean nothing for a flow, by what its own rows say (column `doubt`)."""

from __future__ import annotations

import numpy as np
import pandas as pd

DOUBTFUL_SHARE = 0.05


def is_doubtful(accuracy: pd.DataFrame, above: float = DOUBTFUL_SHARE) -> pd.Series:
    """Say of each run × flow whether more than this share of the flow's rows is doubtful.

    Args:
        accuracy: from `analysis.accuracy`; one without `doubtful_fraction` has no doubts.
        above: share of rows.

    >>> is_doubtful(pd.DataFrame({"doubtful_fraction": [0.0, 0.04, 1.0, np.nan]})).tolist()
    [False, False, True, False]
    """
    share = accuracy.get("doubtful_fraction")
    if share is None:
        return pd.Series(np.zeros(len(accuracy), dtype=bool), accuracy.index)
    return share.astype("float64") > above


def without_doubtful(accuracy: pd.DataFrame, above: float = DOUBTFUL_SHARE) -> pd.DataFrame:
    """Leave out each run × flow of which more than this share of rows is doubtful.

    Comparisons of flows, which are made on the same runs, then leave these runs out too.

    Args:
        accuracy: from `analysis.accuracy`.
        above: share of rows; 0 leaves out whatever has a doubtful row.

    >>> frame = accuracy(load(example_sweep))
    >>> len(without_doubtful(frame)) == len(frame)
    True
    """
    return accuracy[~is_doubtful(accuracy, above)].reset_index(drop=True)
