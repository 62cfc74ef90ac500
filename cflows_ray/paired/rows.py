"""From a chunk's device buffers to rows of the `steps` table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cflows_ray.flows import ABSENT
from cflows_ray.schema import STEP_STATUSES, column_names

COLUMNS = [name for name in column_names("steps") if name != "run_id"]

# fields of a row that stand in the table under their own names
RECORDED = (
    "train_loss_predicted",
    "grad_norm_sq",
    "grad_norm_sq_predicted",
    "sigma_trace",
    "eig_residual",
    "sdcp_residual",
)
MEASURED = (
    "distance_to_discrete",
    "distance_to_midpoint",
    "distance_from_start",
    "nu_rel_error",
    "output_distance",
    "train_accuracy",
    "test_accuracy",
)


def steps_frame(rows: dict[str, Any], num_rows: int) -> pd.DataFrame:
    """Return the filled part of the buffers as a frame, ordered by step and process.

    Args:
        rows: `Row` of NumPy buffers by process, leading axis the buffer's capacity.
        num_rows: rows filled, the same for every process.

    Undefined and infinite numbers are missing (null in Parquet), but for losses, which may be
    infinite; a process that had stopped before has no rows.
    """
    frames = []
    for order, (process, row) in enumerate(rows.items()):
        present = np.flatnonzero(row.record.status[:num_rows] != ABSENT)
        frame = _process_frame(process, row, present)
        frames.append(frame.assign(_order=order))
    stacked = pd.concat(frames, ignore_index=True)
    stacked = stacked.sort_values(["step", "_order"], kind="stable", ignore_index=True)
    return stacked[COLUMNS]


def _process_frame(process: str, row: Any, present: np.ndarray) -> pd.DataFrame:
    record = row.record
    num_critical = record.num_critical[present]
    tracked = np.full(len(present), record.effective_eigs.shape[1])
    of_covariance = np.where(np.isnan(record.sigma_trace[present]), -1, num_critical)
    columns: dict[str, Any] = {
        "step": row.step[present].astype(np.int64),
        "process": pd.array([process] * len(present), dtype="str"),
        "effective_sharpness": _numbers(record.effective_eigs[present][:, 0]),
        "effective_eigs": _lists(record.effective_eigs[present], tracked),
        "num_critical": pd.array(num_critical, dtype="Int64"),
        "sigma_eigs": _lists(record.sigma_eigs[present], of_covariance),
        "displacement_sq": _lists(record.displacement_sq[present], of_covariance),
        "num_gradients": row.counts.gradients[present].astype(np.int64),
        "num_hvps": row.counts.hvps[present].astype(np.int64),
        "num_third_derivatives": row.counts.third_derivatives[present].astype(np.int64),
        "status": pd.array([STEP_STATUSES[s] for s in record.status[present]], dtype="str"),
    }
    columns["num_critical"][num_critical < 0] = pd.NA
    columns |= {name: _numbers(getattr(record, name)[present]) for name in RECORDED}
    columns |= {name: _numbers(getattr(row, name)[present]) for name in MEASURED}
    # losses are kept as they are: infinite ones too
    columns["train_loss"] = record.train_loss[present].astype(np.float64)
    columns["test_loss"] = row.test_loss[present].astype(np.float64)
    return pd.DataFrame(columns)


def _numbers(values: np.ndarray) -> np.ndarray:
    """Return float64 with NaN (null in the table) where a number is not finite."""
    return np.where(np.isfinite(values), values, np.nan).astype(np.float64)


def _lists(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return an object column: of each row so many leading numbers, or None.

    None where the length is negative (nothing of the kind is defined) or a number is not finite.
    """
    column = np.full(len(values), None, dtype=object)
    for i, (value, length) in enumerate(zip(values.astype(np.float64), lengths, strict=True)):
        if length >= 0 and np.all(np.isfinite(value[:length])):
            column[i] = value[:length]
    return column
