"""A run that several sweeps hold is taken from one of them: its row and its steps alike.

The run id says nothing of the sweep, so a run that one sweep began and another finished is in both
folders. To mix them would give the row of a finished run the steps of an interrupted one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from analysis.read.folded import count_rows
from analysis.read.folders import SweepFolder

Statuses = Mapping[str, str]  # of the runs that have a row, by run id


def choose_sweeps(
    found: Sequence[SweepFolder], statuses: Sequence[Statuses], problems: Mapping[str, str]
) -> dict[str, int]:
    """Say which sweep, by its place in `found`, each run is taken from.

    The one where it ended (rather than failed, rather than goes on) and its steps can be read; of
    runs that have not ended, the one with the most rows of steps; else the first.
    """
    places: dict[str, list[int]] = {}
    for place, (sweep, ended) in enumerate(zip(found, statuses, strict=True)):
        for run_id in {**ended, **sweep.step_files}:
            places.setdefault(run_id, []).append(place)

    def rank(run_id: str, place: int) -> tuple[int, bool, int]:
        sweep, status = found[place], statuses[place].get(run_id)
        order = 2 if status is None else 1 if status == "failed" else 0
        unreadable = not readable_steps(sweep, run_id, problems)
        # Footers are read of unfinished runs only: finished ones are alike.
        rows = 0 if order == 0 or unreadable else _rows_written(sweep, run_id)
        return order, unreadable, -rows

    return {
        run_id: among[0] if len(among) == 1 else min(among, key=lambda p: rank(run_id, p))
        for run_id, among in places.items()
    }


def readable_steps(
    sweep: SweepFolder, run_id: str, problems: Mapping[str, str]
) -> tuple[str, ...] | None:
    """Files of a run's steps in a sweep; None if there are none or one of them is bad."""
    files = sweep.step_files.get(run_id)
    return None if files is None or any(file in problems for file in files) else files


def _rows_written(sweep: SweepFolder, run_id: str) -> int:
    """Count the rows of a run's steps by the files' footers; 0 if one has just been merged away."""
    rows = 0
    try:
        for file in sweep.step_files[run_id]:
            rows += count_rows(sweep.filesystem, file, run_id)
    except (pa.ArrowException, OSError):
        return 0
    return rows
