"""Values of a hyperparameter in groups, so that tables stay short however large a sweep is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.infer.cells import PLACE, cells, is_numeric
from analysis.read import declare_like, hyperparameters_of, without_attrs

MOST_VALUES = 10
"""Values of a hyperparameter that a table or a row of figures tells apart."""


class Grouping(NamedTuple):
    """A frame whose hyperparameters have few values, and in words what was grouped."""

    frame: pd.DataFrame
    words: str


def grouped(frame: pd.DataFrame, *, keep: Sequence[str] = (), most: int = MOST_VALUES) -> Grouping:
    """Group the values of hyperparameters that have many within a workload, criterion and rule.

    A numeric hyperparameter with more than `most` values there is cut at their quantiles into
    `most` groups, or fewer if several have so many: their combinations make the cells. The column
    is then categorical, of texts like "0.001 to 0.003", in the order of the values.

    Args:
        frame: from `analysis.accuracy`, or any other with the configuration of its runs.
        keep: hyperparameters that are left as they are, such as the one of an x axis.
        most: values that are told apart.

    The frame is returned as it is, and no words, where there is nothing to group.

    >>> frame = accuracy(load(example_sweep))
    >>> found = grouped(frame, most=1)
    >>> found.frame["lr"].unique().tolist(), found.words
    (['0.01 to 0.02', '0.001'], '2 values of lr in 1 group')
    """
    names = [n for n in hyperparameters_of(frame) if n in frame and n not in keep]
    names = [n for n in names if is_numeric(frame[n])]
    places = [n for n in PLACE if n in frame]
    bare = without_attrs(frame)
    texts: dict[str, pd.Series] = {}
    order: dict[str, dict[str, tuple[float, float]]] = {}
    largest: dict[str, tuple[int, int]] = {}
    for _, rows in cells(bare[[*places, *names]], places):
        many = [n for n in names if rows[n].nunique() > most]
        number = max(1 if most == 1 else 2, round(most ** (1 / max(1, len(many)))))
        for name in many:
            found, ends = _cut(rows[name], number)
            texts.setdefault(name, _plain(bare[name])).loc[rows.index] = found
            order.setdefault(name, {}).update(ends)
            largest[name] = max(largest.get(name, (0, 0)), (rows[name].nunique(), number))
    if not texts:
        return Grouping(frame, "")
    made = bare.copy(deep=False)
    for name, text in texts.items():
        known = {value: order[name].get(value) or (float(value),) * 2 for value in text.dropna()}
        categories = sorted(known, key=lambda value: known[value])
        made[name] = pd.Categorical(text, categories=categories, ordered=True)
    words = "; ".join(
        f"{values} values of {name} in {number} " + ("group" if number == 1 else "quantile groups")
        for name, (values, number) in largest.items()
    )
    made.attrs = {"units": frame.attrs.get("units", {})}
    return Grouping(declare_like(made, frame), words)


def _cut(values: pd.Series, number: int) -> tuple[pd.Series, dict[str, tuple[float, float]]]:
    """Text of each value's group, null for null, and the ends of the groups by their texts."""
    distinct = np.sort(values.dropna().unique().astype(np.float64))
    ends = [(float(v[0]), float(v[-1])) for v in np.array_split(distinct, number)]
    numbers = values.to_numpy(np.float64, na_value=np.nan)
    place = np.searchsorted([low for low, _ in ends], numbers, side="right") - 1
    labels = np.array([_text(low, high) for low, high in ends], dtype=object)
    texts = pd.Series(labels[place], values.index).where(values.notna())
    return texts, dict(zip(labels.tolist(), ends, strict=True))


def _plain(values: pd.Series) -> pd.Series:
    """Texts of values; null stays null."""
    return values.map(lambda v: f"{v:g}", na_action="ignore").astype("object")


def _text(low: float, high: float) -> str:
    """Text of a group; with as few digits as tell its ends apart.

    >>> _text(0.001, 0.00316), _text(0.1, 0.1)
    ('0.001 to 0.0032', '0.1')
    """
    if low == high:
        return f"{low:g}"
    for digits in (2, 3, 4, 6):
        if float(f"{low:.{digits}g}") < float(f"{high:.{digits}g}"):
            return f"{low:.{digits}g} to {high:.{digits}g}"
    return f"{low!r} to {high!r}"
