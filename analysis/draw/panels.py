"""Panels: the cells that a figure draws side by side, and what tells them apart in a few words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.infer import cells
from analysis.read import declare_like, hyperparameters_of, without_attrs

_IN_HEADINGS = ("workload", "criterion")  # a report's heading names these for all its panels


class Panel(NamedTuple):
    """Rows of one cell of runs, which differ in their seed and learning rate only, and its name."""

    title: str
    rows: pd.DataFrame


def panels(frame: pd.DataFrame, keys: Sequence[str]) -> list[Panel]:
    """One panel per cell, named by its rule and by whatever else differs between the panels.

    >>> frame = accuracy(load(example_sweep))
    >>> [p.title for p in panels(frame, ["workload", "criterion", "rule", "beta2"])]
    ['gradient_descent', 'rmsprop, beta2 0.99']
    """
    found = list(cells(frame, keys))
    names = titles([cell for cell, _ in found], symbols_of(frame))
    return [Panel(name, rows) for name, (_, rows) in zip(names, found, strict=True)]


def symbols_of(frame: pd.DataFrame) -> dict[str, str]:
    """Return the symbols that hyperparameters declare, for titles; the others go by their name."""
    found = hyperparameters_of(frame)
    return {name: facts["symbol"] for name, facts in found.items() if "symbol" in facts}


def titles(
    found: Sequence[Mapping[str, Any]], symbols: Mapping[str, str] | None = None
) -> list[str]:
    """Name each cell by its rule and by the keys that differ between the cells.

    >>> titles([{"rule": "rmsprop", "beta2": b, "substeps": 4} for b in (0.9, 0.99)])
    ['rmsprop, beta2 0.9', 'rmsprop, beta2 0.99']
    """
    facts = [_facts(cell) for cell in found]
    names, symbols = dict.fromkeys(name for one in facts for name in one), symbols or {}
    differ = [n for n in names if n != "rule" and len({one.get(n) for one in facts}) > 1]
    return [
        ", ".join([one["rule"], *(f"{symbols.get(n, n)} {one[n]}" for n in differ if n in one)])
        for one in facts
    ]


def batches(found: Sequence[Panel], most: int) -> list[Sequence[Panel]]:
    """Split panels into figures of at most so many, as even as can be."""
    if not found:
        return []
    ends = np.linspace(0, len(found), -(-len(found) // most) + 1).round().astype(int)
    return [found[i:j] for i, j in pairwise(ends)]


def all_rows(found: Sequence[Panel]) -> pd.DataFrame:
    """Rows of several panels in one frame."""
    return pd.concat([without_attrs(panel.rows) for panel in found])


def with_keys(frame: pd.DataFrame, accuracy: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Give the rows of a frame those keys of their runs that it lacks."""
    lacking = [key for key in keys if key not in frame]
    runs = without_attrs(accuracy)[["run_id", *lacking]].drop_duplicates("run_id")
    if not lacking:
        return frame
    return declare_like(without_attrs(frame).merge(runs, on="run_id", how="left"), frame)


def key_text(value: object) -> str:
    """Write the value of a key; a dash where the configuration has none.

    >>> [key_text(v) for v in (0.001, "rmsprop", None, 4)]
    ['0.001', 'rmsprop', '-', '4']
    """
    if value is None or value is pd.NA or value != value:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _facts(cell: Mapping[str, Any]) -> dict[str, str]:
    """Text of each key that has a value; the workload's options one by one."""
    facts: dict[str, str] = {}
    for key, value in cell.items():
        if key == "workload_options":
            facts |= _options(str(value))
        elif key not in _IN_HEADINGS and key_text(value) != "-":
            facts[key] = key_text(value)
    return facts


def _options(text: str) -> dict[str, str]:
    try:
        options = json.loads(text)
    except ValueError:
        return {"options": text}
    if not isinstance(options, dict):
        return {"options": text}
    return {str(name): str(value) for name, value in options.items()}
