"""Tables that fit a screen or a page, whatever the size of the sweep, and which cells are worst."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from analysis.draw import key_text
from analysis.infer import MOST_VALUES, PLACE, cell_keys, grouped, main_flow
from analysis.measure import find_metric

SCREEN_ROWS, PAGE_ROWS = 72, 300  # of a table: cells × flows
_WORST = 5  # cells that are named
_WORST_BY = "final_distance"


class Fitted(NamedTuple):
    """Rows of `accuracy` whose cells fit, and in words what was grouped and left out."""

    accuracy: pd.DataFrame
    words: list[str]


def fitted(accuracy: pd.DataFrame, most_rows: int) -> Fitted:
    """Group hyperparameters, as little as it takes, until the table of cells × flows is short.

    Where workloads and rules alone are too many, the worst cells are kept.

    >>> frame = accuracy(load(example_sweep))
    >>> fitted(frame, 100).words, fitted(frame, 4).words
    ([], ['Pooled: 2 values of lr in 1 group.'])
    """
    for most in (MOST_VALUES, 3, 1):
        frame, words = grouped(accuracy, most=most)
        said = [f"{'Pooled' if most == 1 else 'Grouped'}: {words}."] if words else []
        keys = [*cell_keys(frame), "flow"]
        number = len(frame[keys].drop_duplicates())
        if number <= most_rows:
            return Fitted(frame, said)
    flows = frame["flow"].nunique()
    ranked = _ranked(frame, keys[:-1])
    kept = ranked.head(max(1, most_rows // flows))
    said.append(f"Shown: the {len(kept)} cells of {len(ranked)} that are worst by {_meant(frame)}.")
    chosen = frame.merge(kept.reset_index()[keys[:-1]], on=keys[:-1], how="inner")
    chosen.attrs = frame.attrs
    return Fitted(chosen, said)


def worst_cells(accuracy: pd.DataFrame) -> list[str]:
    """Name the worst cells of a frame of `accuracy` and how bad they are, one a line."""
    keys = cell_keys(accuracy)
    ranked = _ranked(accuracy, keys).head(_WORST)
    if len(ranked) < 2:
        return []
    lines = [f"Worst cells, by {_meant(accuracy)}:"]
    for key, value in ranked.items():
        named = zip(keys, key if isinstance(key, tuple) else (key,), strict=True)
        words = [v if k in PLACE else f"{k} {key_text(v)}" for k, v in named if key_text(v) != "-"]
        lines.append(f"  {100 * value:.3g}%  {', '.join(map(str, words))}")
    return lines


def _ranked(accuracy: pd.DataFrame, keys: Sequence[str]) -> pd.Series:
    """Mean of the metric of the main flow over the finished runs of each cell, largest first."""
    is_main = accuracy["flow"].astype("str") == main_flow(accuracy)
    rows = accuracy[is_main & (accuracy["run_status"].astype("str") == "finished")]
    means = rows.groupby(list(keys), observed=True, dropna=False)[_WORST_BY].mean()
    return means.dropna().sort_values(ascending=False, kind="stable")


def _meant(accuracy: pd.DataFrame) -> str:
    return f"{find_metric(_WORST_BY).label} of {main_flow(accuracy)}"
