"""One run as NumPy arrays: what metrics and figures work on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from analysis.read.declared import PROCESSES, processes_of, references
from cflows_ray.schema import StepStatus, arrow_schema

Floats = NDArray[np.float64]
Rows = NDArray[np.int64] | slice

ENDED = (StepStatus.STOPPED.word, StepStatus.DIVERGED.word)
"""Statuses of the row with which a process ended before its run did."""


@dataclass(frozen=True, eq=False)
class Trace:
    """All processes of one run.

    `processes[name][column]` is an array with one entry per recorded step, in the order of steps:
    float64 with NaN for null; (n, k) padded with NaN for list columns; `step` is int64 and `status`
    an array of strings. `references` names the processes that predict nothing.
    """

    run_id: str
    processes: Mapping[str, Mapping[str, NDArray]]
    references: tuple[str, ...] = references(PROCESSES)
    _scored: dict[str, dict[str, NDArray]] = field(default_factory=dict, repr=False)

    @property
    def flows(self) -> list[str]:
        """Processes that predict something: all but the optimizer and its midpoints."""
        return [name for name in self.processes if name not in self.references]

    def ending(self, process: str) -> str | None:
        """Return `stopped` or `diverged` if the process's last row says so, else None."""
        status = self.processes[process]["status"]
        return str(status[-1]) if len(status) and status[-1] in ENDED else None

    def flow_ending(self, flow: str) -> str | None:
        """Return how a flow ended before the optimizer did: `stopped`, `diverged`, or None.

        One that ended between two records has no row that says so, only none any more: `stopped`.
        """
        ending, last = self.ending(flow), self.processes[flow]["step"][-1:]
        early = bool((last < self.processes["discrete"]["step"][-1:]).any())
        return ending or ("stopped" if early else None)

    def scored(self, process: str) -> dict[str, NDArray]:
        """Return the columns of a process without the rows with which it stopped or diverged.

        Such a row records the state that was given up on, so its values are no prediction. There is
        one at the end, or where flows begin anew one in each forecast.
        """
        if process not in self._scored:
            columns = self.processes[process]
            lost = np.isin(columns["status"], ENDED)
            keep: Rows | NDArray[np.bool_] = slice(None)
            if lost[:-1].any():
                keep = ~lost
            elif lost.any():
                keep = slice(-1)  # nearly always, if at all; slices copy nothing
            self._scored[process] = {name: values[keep] for name, values in columns.items()}
        return self._scored[process]


def traces_from_table(
    table: pa.Table, measured_against: tuple[str, ...] = references(PROCESSES)
) -> Iterator[Trace]:
    """Split an Arrow table of whole runs' steps by run and process.

    Columns are converted whole and then cut: to convert each share of each column by itself cost
    three times as much for the processes of a run, and more for many short runs.
    """
    run, process = (pc.dictionary_encode(table[c].combine_chunks()) for c in ("run_id", "process"))
    names = process.dictionary.to_pylist()
    codes = run.indices.to_numpy().astype(np.int64) * len(names) + process.indices.to_numpy()
    order = np.lexsort((table["step"].to_numpy(), codes))
    run_ids = run.dictionary.to_pylist()
    ends = np.cumsum(np.bincount(codes, minlength=len(run_ids) * len(names)))
    begins = np.concatenate([[0], ends[:-1]])
    columns: dict[str, tuple[NDArray, NDArray[np.int64] | None]] = {}
    for name in table.column_names:
        if name not in ("run_id", "process"):
            values, lengths = _to_array(table[name])
            columns[name] = values[order], None if lengths is None else lengths[order]
    for i, run_id in enumerate(run_ids):
        processes = {}
        for j, name in enumerate(names):
            share = slice(begins[i * len(names) + j], ends[i * len(names) + j])
            if share.start < share.stop:
                processes[name] = {c: _share(*column, share) for c, column in columns.items()}
        yield Trace(run_id, processes, measured_against)


def _share(values: NDArray, lengths: NDArray[np.int64] | None, share: slice) -> NDArray:
    """Cut a run's process out of a column; of a list column no wider than its longest list."""
    mine = values[share]
    return mine if lengths is None else mine[:, : int(lengths[share].max(initial=0))]


def trace_from_table(
    run_id: str, table: pa.Table, measured_against: tuple[str, ...] = references(PROCESSES)
) -> Trace:
    """Split an Arrow table of one run's steps by process; of no rows, a trace without any."""
    found = list(traces_from_table(table, measured_against))
    return found[0] if found else Trace(run_id, {}, measured_against)


def run_trace(steps: pd.DataFrame) -> Trace:
    """Trace of the frame of one run; without a column `run_id`, all its rows are taken for one.

    Raises `ValueError` unless it is the frame of one run, with the optimizer that all is measured
    against.
    """
    needed = {"step", "process", "status"} - set(steps.columns)
    if needed:
        raise ValueError(f"steps: the frame lacks the columns {sorted(needed)}")
    if "run_id" not in steps:  # as of `cflows_ray.run_paired`
        steps = steps.assign(run_id="run")
    ids = steps["run_id"].astype("str").unique()
    if len(ids) != 1:
        raise ValueError(f"steps: must hold the rows of one run, got {len(ids)}")
    if "discrete" not in set(steps["process"].astype("str")):
        raise ValueError("steps: the frame lacks the rows of the process 'discrete'")
    schema = arrow_schema("steps")
    fields = [f for f in schema if f.name in steps]
    added = [str(n) for n in steps if n not in schema.names]  # by flows and newer versions
    fields += [pa.field(n, pa.float64()) for n in added if pd.api.types.is_numeric_dtype(steps[n])]
    plain = steps[[f.name for f in fields]].astype(
        {n: "str" for n in ("run_id", "process", "status") if n in steps}
    )
    return trace_from_table(
        str(ids[0]),
        pa.Table.from_pandas(plain, schema=pa.schema(fields), preserve_index=False),
        references(processes_of(steps)),
    )


def common_steps(one: NDArray, other: NDArray) -> tuple[NDArray, Rows, Rows]:
    """Find the steps that two increasing series share, and the rows of each that they are at."""
    if np.array_equal(one, other):  # nearly always; slices copy nothing
        return one, slice(None), slice(None)
    return np.intersect1d(one, other, assume_unique=True, return_indices=True)


def _to_array(column: pa.ChunkedArray) -> tuple[NDArray, NDArray[np.int64] | None]:
    """Values of a column; of a list column also the lengths of its lists."""
    if pa.types.is_string(column.type):
        encoded = pc.dictionary_encode(column.combine_chunks())
        known = np.array([*encoded.dictionary.to_pylist(), ""], dtype=np.str_)
        return known[pc.fill_null(encoded.indices, -1).to_numpy()], None
    if pa.types.is_list(column.type):
        return _pad_lists(column)
    if pa.types.is_integer(column.type) and column.null_count == 0:
        return column.to_numpy(), None
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False), None


def _pad_lists(column: pa.ChunkedArray) -> tuple[Floats, NDArray[np.int64]]:
    """Turn lists of different lengths into an (n, k) array padded with NaN; null is empty."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    lengths = np.asarray(lengths, dtype=np.int64)
    values = pc.list_flatten(column).to_numpy(zero_copy_only=False).astype(np.float64)
    width = int(lengths.max(initial=0))
    padded = np.full((len(lengths), width), np.nan)
    padded[np.arange(width) < lengths[:, None]] = values
    return padded, lengths
