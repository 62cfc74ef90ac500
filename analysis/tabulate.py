"""Tables of the report: numbers as text, with their intervals, and keys that are said once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import page
from analysis.console import significant
from analysis.panels import key_text


def cell_table(
    rows: Sequence[Mapping[str, object]], keys: Sequence[str], caption: str, text: Sequence[str]
) -> str:
    """Make a table that states keys once: in the caption if constant, else where they change."""
    table = pd.DataFrame(rows)
    constant = [k for k in keys if k != "lr" and len(table) > 1 and table[k].nunique() == 1]
    shared = " · ".join(_constant(k, str(table[k].iloc[0])) for k in constant)
    varying = [k for k in keys if k not in constant]
    stated = table[varying].astype("str")
    changed = (stated != stated.shift()).any(axis=1)
    for i, key in enumerate(varying):
        outer = stated[varying[: i + 1]]
        table[key] = stated[key].where((outer != outer.shift()).any(axis=1), "")
    caption = f"{caption} ({shared})" if shared else caption
    shown = table.drop(columns=constant)
    left = [name for name in text if name in shown]
    return page.table(shown, caption=caption, text=left, new_cell=changed.to_list())


def with_limits(value: float, low: float, high: float, *, digits: int = 2) -> str:
    """Format a value with its interval in small print, if it has one."""
    if not np.isfinite(low) and not np.isfinite(high):
        return significant(value, digits)
    limits = f"{significant(low, digits)}, {significant(high, digits)}"
    return f"{significant(value, digits)}<small>[{limits}]</small>"


def step_limits(median: float, low: float, high: float, longest: float) -> str:
    """Format a number of steps with its interval; infinite is beyond the longest run."""

    def text(value: float) -> str:
        return f">{longest:.0f}" if np.isinf(value) else f"{value:.0f}"

    if np.isnan(low) or np.isinf(low):
        return text(median)
    return f"{text(median)}<small>[{text(low)}, {text(high)}]</small>"


def p_text(value: float) -> str:
    """Format a p-value; below 0.0001 as a power of ten."""
    return significant(value) if not value < 1e-4 else f"{value:.0e}"


def percent(value: float) -> str:
    """Format a share in per cent."""
    return "-" if np.isnan(value) else f"{100 * value:.0f}%"


def records(frame: pd.DataFrame) -> Iterator[Any]:
    """Iterate over a frame's rows as named tuples."""
    yield from frame.itertuples(index=False)


def key_columns(row: Any, keys: Sequence[str]) -> dict[str, str]:
    """Text of the keys of a record, by their names."""
    return {key: key_text(getattr(row, key)) for key in keys}


def _constant(key: str, text: str) -> str:
    return text if key in ("workload", "criterion", "rule", "flow") else f"{key} {text}"
