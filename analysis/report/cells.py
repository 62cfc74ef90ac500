"""Tables of the report: rows of text, with keys that are said once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.draw import key_text
from analysis.infer import PLACE
from analysis.report import page


def cell_table(
    rows: Sequence[Mapping[str, object]], keys: Sequence[str], caption: str, text: Sequence[str]
) -> str:
    """Make a table that states keys once: in the caption if constant, else where they change."""
    table = pd.DataFrame(rows, dtype=object)  # a column of texts would forget which are HTML
    constant = [k for k in keys if k != "lr" and len(table) > 1 and table[k].nunique() == 1]
    shared = " · ".join(_constant(k, str(table[k].iloc[0])) for k in constant)
    varying = [k for k in keys if k not in constant]
    stated = table[varying].astype("str")
    changed = (stated != stated.shift()).any(axis=1)
    for i, key in enumerate(varying):
        outer = stated[varying[: i + 1]]
        first = (outer != outer.shift()).any(axis=1)
        texts = [t if new else page.Again(t) for t, new in zip(stated[key], first, strict=True)]
        table[key] = pd.Series(texts, dtype=object, index=table.index)
    caption = f"{caption} ({shared})" if shared else caption
    shown = table.drop(columns=constant)
    left = [name for name in text if name in shown]
    return page.table(shown, caption=caption, text=left, new_cell=changed.to_list())


def records(frame: pd.DataFrame) -> Iterator[Any]:
    """Iterate over a frame's rows as named tuples."""
    yield from frame.itertuples(index=False)


def has_forecasts(runs: pd.DataFrame) -> bool:
    """Say whether in any run flows began anew at the optimizer (`restart_every`)."""
    every = runs.get("restart_every")
    return every is not None and bool((pd.to_numeric(every, errors="coerce") > 0).any())


def key_columns(row: Any, keys: Sequence[str]) -> dict[str, str]:
    """Text of the keys of a record, by their names."""
    return {key: key_text(getattr(row, key)) for key in keys}


def _constant(key: str, text: str) -> str:
    return text if key in (*PLACE, "flow") else f"{key} {text}"
