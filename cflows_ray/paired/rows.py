"""From a chunk's device buffers to rows of the `steps` table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from cflows_ray.flows import Listed, steps_columns
from cflows_ray.paired.state import ABSENT, Row
from cflows_ray.schema import STEP_STATUSES, Column, Doubt

# Relative, between two processes at the common start: a float32 loss that cancels is as far off.
LOSS_TOLERANCE = 0.01
# Kept as they are, infinite ones too; other numbers that are not finite are missing.
LOSSES = ("train_loss", "test_loss")


def steps_frame(rows: dict[str, Row], num_rows: int) -> pd.DataFrame:
    """Return the filled part of the buffers as a frame, ordered by step and process.

    Args:
        rows: `Row` of NumPy buffers by process, leading axis the buffer's capacity.
        num_rows: rows filled, the same for every process.

    What a process does not record is missing (null in Parquet); a process that had ended before has
    no rows.
    """
    columns = [column for column in steps_columns() if column.name != "run_id"]
    frames = []
    for order, (process, row) in enumerate(rows.items()):
        present = np.flatnonzero(row.status[:num_rows] != ABSENT)
        frame = _process_frame(process, row, present, columns)
        frames.append(frame.assign(_order=order))
    stacked = pd.concat(frames, ignore_index=True)
    stacked = stacked.sort_values(["step", "_order"], kind="stable", ignore_index=True)
    return stacked[[column.name for column in columns]]


def check_one_loss(rows: pd.DataFrame, dtype: str) -> None:
    """Check that all processes that stand at one point at step 0 have one loss there.

    Raises `ValueError` where they do not: the loss is not a function of the parameters. Rounding
    differs between processes, whose code is compiled apart.
    """
    first = rows[(rows["step"] == 0) & np.isfinite(rows["train_loss"])]
    first = first[(first["process"] == "discrete") | (first["distance_to_discrete"] == 0)]
    losses = first["train_loss"].to_numpy()
    if len(losses) and np.ptp(losses) > LOSS_TOLERANCE * np.max(np.abs(losses)):
        low, high = (first.iloc[at] for at in (np.argmin(losses), np.argmax(losses)))
        raise ValueError(
            f"loss_fn must have one value at one point, got {low.train_loss:.6g} ({low.process}) "
            f"and {high.train_loss:.6g} ({high.process}) at the start: it is not a pure function, "
            f"or {dtype} has too few digits for it"
        )


def _process_frame(
    process: str, row: Row, present: np.ndarray, columns: list[Column]
) -> pd.DataFrame:
    named: dict[str, Any] = {
        "step": row.step[present].astype(np.int64),
        "process": pd.array([process] * len(present), dtype="str"),
        "num_gradients": row.counts.gradients[present].astype(np.int64),
        "num_hvps": row.counts.hvps[present].astype(np.int64),
        "num_third_derivatives": row.counts.third_derivatives[present].astype(np.int64),
        "status": pd.array([STEP_STATUSES[s] for s in row.status[present]], dtype="str"),
        "doubt": pd.array([Doubt(int(d)).words for d in row.doubt[present]], dtype="str"),
    }
    for column in columns:
        if column.name not in named:
            named[column.name] = _values(column, row.values.get(column.name), present)
    unknown = row.values.keys() - named.keys()
    if unknown:
        raise ValueError(f"columns must be declared, {process} records {sorted(unknown)}")
    return pd.DataFrame(named)


def _values(column: Column, recorded: Any, present: np.ndarray) -> Any:
    """Return what a process recorded in a column, at some rows, as pandas keeps it."""
    if pa.types.is_list(column.type):
        if recorded is None:
            return np.full(len(present), None, dtype=object)
        return _lists(Listed(recorded.values[present], recorded.length[present]))
    if pa.types.is_integer(column.type):
        missing = np.full(len(present), -1) if recorded is None else recorded[present]
        values = pd.array(missing, dtype="Int64")
        values[missing < 0] = pd.NA
        return values
    if recorded is None:
        return np.full(len(present), np.nan)
    numbers = recorded[present].astype(np.float64)
    if column.name in LOSSES:
        return numbers
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _lists(listed: Listed) -> np.ndarray:
    """Return an object column: of each row so many leading numbers, or None.

    None where the length is negative (nothing of the kind is defined) or a number is not finite.
    """
    column = np.full(len(listed.values), None, dtype=object)
    values = listed.values.astype(np.float64)
    for i, (value, length) in enumerate(zip(values, listed.length, strict=True)):
        if length >= 0 and np.all(np.isfinite(value[:length])):
            column[i] = value[:length]
    return column
