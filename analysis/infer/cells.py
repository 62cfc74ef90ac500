"""Cells: which runs are pooled. Runs that agree in all but their seed belong to one cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.read import (
    MAIN_FLOW,
    REFERENCE_FLOW,
    configuration_of,
    declare_like,
    hyperparameters_of,
    without_attrs,
)

PLACE = ("workload", "criterion", "rule")
"""What every cell has in common, with the learning rate, whatever varies."""


DATA = "data"
"""Column of the fingerprint: runs of the same configuration on data that have been replaced."""


def cell_keys(frame: pd.DataFrame) -> list[str]:
    """Columns that make a cell of runs differing in their seed only.

    Workload, criterion, rule and learning rate; every other hyperparameter that varies among the
    runs of a workload, criterion and rule; and whatever else of the configuration varies within
    the cells that these make: runs with another `beta2` or number of substeps are never pooled by
    accident.

    `frame`: from `analysis.accuracy`, or any other with the configuration of its runs.
    """
    base = [*PLACE, "lr"]
    hyperparameters = [n for n in hyperparameters_of(frame) if n in frame and n not in base]
    others = [n for n in configuration_of(frame) if n in frame and n not in base]
    frame = without_attrs(frame)
    varying = set(_varying(frame, PLACE, hyperparameters))
    own = [n for n in hyperparameters if n in varying]
    rest = [n for n in others if n not in varying]
    varying |= set(_varying(frame, [*base, *own], [n for n in rest if n != DATA]))
    keys = [*base, *(n for n in others if n in varying)]
    if DATA in others:
        # Null is not another data set but an unknown one: of older files, or of a run that failed.
        keys += _varying(frame[frame[DATA].notna()], keys, [DATA])
    return keys


def panel_keys(frame: pd.DataFrame, x: str = "lr") -> list[str]:
    """Columns that make a cell of runs differing in their seed and one hyperparameter only.

    `frame`: from `analysis.accuracy`, or any other with the configuration of its runs.

    >>> panel_keys(accuracy(load(example_sweep)))
    ['workload', 'criterion', 'rule']
    """
    return [key for key in cell_keys(frame) if key != x]


def swept(frame: pd.DataFrame) -> list[str]:
    """Hyperparameters with several values in some cell of all other keys: what can be an x axis.

    >>> swept(accuracy(load(example_sweep)))
    ['lr']
    """
    names = [n for n in cell_keys(frame) if n in hyperparameters_of(frame)]
    bare = without_attrs(frame)
    return [name for name in names if _varying(bare, panel_keys(frame, name), [name])]


def main_flow(frame: pd.DataFrame) -> str:
    """Flow that a report is about: `central` if it is there, else the first by name.

    The reference flow, `stable`, comes last: others are compared with it.

    >>> main_flow(pd.DataFrame({"flow": ["stable", "rod"]}))
    'rod'
    """
    flows = set(frame["flow"].astype("str"))
    if MAIN_FLOW in flows or not flows:
        return MAIN_FLOW
    return min(flows, key=lambda name: (name == REFERENCE_FLOW, name))


def _varying(frame: pd.DataFrame, within: Sequence[str], names: Sequence[str]) -> list[str]:
    """Those of some columns that have several values in some cell of others; null is a value."""
    within = [n for n in within if n in frame]
    if not within:
        return [n for n in names if frame[n].astype("str").nunique() > 1]
    values = {name: _codes(frame[name]) for name in names}
    values = {name: codes for name, codes in values.items() if (codes != codes[:1]).any()}
    if not values:  # as most of a configuration, in most studies
        return []
    cell = frame.groupby(within, observed=True, dropna=False).ngroup().to_numpy()
    first = np.zeros(cell.max(initial=-1) + 1, dtype=np.int64)
    varying = []
    for name, codes in values.items():
        first[cell] = codes  # of each cell some row's, whichever
        if (first[cell] != codes).any():
            varying.append(name)
    return varying


def _codes(column: pd.Series) -> NDArray[np.int64]:
    """Return a number for each value, -1 for null; objects as text, as they may be of any type."""
    plain = column.astype("str") if column.dtype == object else column
    return np.asarray(pd.factorize(plain)[0], dtype=np.int64)


def cells(frame: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Iterate over a frame's groups in key order, with the keys as a dict; null is a key too.

    Groups tell in `attrs` what their columns are, but no units.
    """
    bare = without_attrs(frame)
    if not by:
        yield {}, declare_like(bare, frame)
        return
    for key, group in bare.groupby(list(by), observed=True, dropna=False, sort=True):
        declare_like(group, frame)
        yield dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True)), group


def is_numeric(values: pd.Series) -> bool:
    """Say whether values are numbers, and no flags: something can rise or fall with them.

    >>> is_numeric(pd.Series([0.1, 0.2])), is_numeric(pd.Series([True, False]))
    (True, False)
    """
    is_flag = pd.api.types.is_bool_dtype(values)
    return bool(pd.api.types.is_numeric_dtype(values) and not is_flag)


def check_by(frame: pd.DataFrame, by: str | Sequence[str]) -> list[str]:
    """`by` as a list of existing columns. Raises `ValueError` naming the first that is not."""
    names = as_names(by)
    for name in names:
        if name not in frame or name == "flow":
            raise ValueError(f"by: no column {name!r} to group by; e.g. {[*PLACE, 'lr']}")
    return names


def as_names(given: str | Sequence[str]) -> list[str]:
    """List of names, of which a single one may be given as it is."""
    return [given] if isinstance(given, str) else list(given)


def check_accuracy(frame: pd.DataFrame) -> None:
    """Raise `ValueError` unless this is a frame of `analysis.accuracy`."""
    check_frame(frame, ("run_id", "flow", "run_status", "flow_status"), "analysis.accuracy")


def check_frame(frame: pd.DataFrame, columns: Sequence[str], source: str) -> None:
    """Raise `ValueError` unless this is a frame with the columns that `source` gives it."""
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(f"give the frame that {source} returns, got {type(frame).__name__}")
    lacking = [name for name in columns if name not in frame]
    if lacking:
        raise ValueError(f"give the frame that {source} returns; this one lacks {lacking}")


def keep_dtypes(frame: pd.DataFrame, source: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Give key columns back the (categorical) types that they had."""
    for name in columns:
        if name in frame and name in source:
            frame[name] = frame[name].astype(source[name].dtype)
    frame.attrs = {"units": dict(source.attrs.get("units", {}))}
    return declare_like(frame, source)
