"""One run as NumPy arrays: what metrics and figures work on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Floats = NDArray[np.float64]

REFERENCES = ("discrete", "midpoint")  # processes that are measured against, not predictions
_ENDED = ("stopped", "diverged")


@dataclass(frozen=True, eq=False)
class Trace:
    """All processes of one run.

    `processes[name][column]` is an array with one entry per recorded step, in the order of steps:
    float64 with NaN for null; (n, k) padded with NaN for list columns; `step` is int64 and `status`
    an array of strings.
    """

    run_id: str
    processes: Mapping[str, Mapping[str, NDArray]]
    _scored: dict[str, dict[str, NDArray]] = field(default_factory=dict, repr=False)

    @property
    def flows(self) -> list[str]:
        """Processes that predict something: all but the optimizer and its midpoints."""
        return [name for name in self.processes if name not in REFERENCES]

    def ending(self, process: str) -> str | None:
        """Return `stopped` or `diverged` if the process's last row says so, else None."""
        status = self.processes[process]["status"]
        return str(status[-1]) if len(status) and status[-1] in _ENDED else None

    def scored(self, process: str) -> dict[str, NDArray]:
        """Return the columns of a process without the row with which it stopped or diverged.

        That row records the state that was given up on, so its values are no prediction.
        """
        if process not in self._scored:
            columns = self.processes[process]
            ended = self.ending(process) is not None
            self._scored[process] = {
                name: values[:-1] if ended else values for name, values in columns.items()
            }
        return self._scored[process]


def trace_from_table(run_id: str, table: pa.Table) -> Trace:
    """Split an Arrow table of one run's steps by process."""
    processes = {}
    for name in pc.unique(table["process"]).to_pylist():
        rows = table.filter(pc.equal(table["process"], name)).combine_chunks()
        order = np.argsort(rows["step"].to_numpy(), kind="stable")
        processes[name] = {
            column: _to_array(rows[column])[order]
            for column in rows.column_names
            if column not in ("run_id", "process")
        }
    return Trace(run_id, processes)


def _to_array(column: pa.ChunkedArray) -> NDArray:
    if pa.types.is_string(column.type):
        return column.to_numpy(zero_copy_only=False)
    if pa.types.is_list(column.type):
        return _pad_lists(column)
    if pa.types.is_integer(column.type) and column.null_count == 0:
        return column.to_numpy()
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False)


def _pad_lists(column: pa.ChunkedArray) -> Floats:
    """Turn lists of different lengths into an (n, k) array padded with NaN; null is empty."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    lengths = np.asarray(lengths, dtype=np.int64)
    values = pc.list_flatten(column).to_numpy(zero_copy_only=False).astype(np.float64)
    width = int(lengths.max(initial=0))
    padded = np.full((len(lengths), width), np.nan)
    padded[np.arange(width) < lengths[:, None]] = values
    return padded
