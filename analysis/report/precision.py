"""How well each cell is known, for whoever decides on more seeds: lines of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from analysis.infer import ratio_precision

SHOWN = ("runs", "n", "median", "low", "high", "halfwidth", "run_ids")


def precision_lines(frame: pd.DataFrame) -> Iterator[str]:
    """Yield a line of JSON for each cell: what `infer.ratio_precision` says of central and stable.

    The ids of the runs that it pools say which cell it is. What is not finite is null.
    `frame`: from `analysis.accuracy`.
    """
    for row in ratio_precision(frame)[list(SHOWN)].to_dict("records"):
        yield json.dumps({name: _plain(value) for name, value in row.items()})


def _plain(value: Any) -> Any:
    """Return a value of JSON: there is no infinity in it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
