"""Several runs on storage carried out together: a pack, or one run after the other.

Every run keeps rows, checkpoints and an end of its own (`session.py`), so a pack that dies anywhere
is taken up again run by run, in whatever company.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from cflows_ray.sweep.run_config import RunConfig
from cflows_ray.sweep.session import Progress, RunSession, in_one_line, out_of_memory

if TYPE_CHECKING:
    import pandas as pd

    from cflows_ray.paired import PairedRun


class Report(NamedTuple):
    """What became of one run in a chunk, and what a person should know of it."""

    run_id: str
    progress: Progress
    notes: list[str]


class PackSession:
    """Runs of one kind being carried out by this process.

    Attributes:
        members: all of them.

    Args:
        sessions: opened runs; they must share workload, options and kind of rule.
        size: runs in one batched program; None to choose it from memory and measured speed.
        chunk_steps: optimizer steps in one `advance`.
    """

    def __init__(
        self, sessions: Sequence[RunSession], *, size: int | None, chunk_steps: int
    ) -> None:
        self.members = tuple(sessions)
        self._unprepared = list(sessions)
        self._ready: list[RunSession] = []
        self._packed: list[RunSession] = []  # ended ones too: the program keeps its shape
        self._live: list[RunSession] = []
        self._size = 1 if len(sessions) == 1 else size
        self._chunk_steps = chunk_steps
        self._pack: Any = None

    @property
    def done(self) -> bool:
        """Whether every run has ended."""
        return not (self._unprepared or self._ready or self._live)

    def advance(self) -> list[Report]:
        """Compute one chunk of the present pack; say what became of its runs.

        Errors of the machine and of storage are raised, others are results; see `RunSession`.
        """
        if self._size == 1:
            self._ready, self._unprepared = self._ready + self._unprepared, []
            self._live = self._live or [self._ready.pop(0)]
            return self._reports([self._live[0].advance()])
        if self._unprepared:
            return self._prepare()
        if not self._live:
            self._form()
        return self._reports(self._advance_pack())

    def save(self) -> None:
        """Leave every run resumable."""
        for session in self._live:
            session.save()

    def _prepare(self) -> list[Report]:
        """Build all runs; report where they stand, some of them ended."""
        reports = []
        for session in self._unprepared:
            progress = session.prepare()
            if progress is not None and progress.status == "running":
                progress = session.prepare()  # rows that it relied on were gone: it starts over
            if progress is None:
                self._ready.append(session)
                progress = session.progress()
            reports.append(_report(session, progress))
        self._unprepared = []
        if self._size is None and self._ready:
            self._size = self._size_that_pays()
        return reports

    def _size_that_pays(self) -> int:
        """Return how many runs to pack; one where that can't be found out."""
        from cflows_ray.paired import choose_pack_size

        try:
            return choose_pack_size(_paired(self._ready), [s.state for s in self._ready])
        except Exception as error:
            # By itself, each run meets what is wrong with it, and no other fails for that.
            note = f"no size of packs could be tried ({in_one_line(error)}): runs go one by one"
            self._ready[0].notes.append(note)
            return 1

    def _form(self) -> None:
        """Take the next runs into a pack."""
        from cflows_ray.paired import PairedPack

        size = self._size or 1
        self._packed, self._ready = self._ready[:size], self._ready[size:]
        self._live = list(self._packed)
        self._pack = PairedPack(_paired(self._packed))

    def _advance_pack(self) -> list[Progress]:
        begin, compiled = time.perf_counter(), self._packed[0].paired.compile_s
        try:
            states, frames = self._pack.compute([s.state for s in self._packed], self._chunk_steps)
        except Exception as error:
            if not out_of_memory(error) or len(self._live) == 1:
                return [session.fail(error) for session in self._live]
            self._size = len(self._live) // 2
            self._live[0].notes.append(f"out of memory: from here on packs of {self._size}")
            return [session.progress() for session in self._live]
        # what the program cost is borne by the runs that still needed it
        share = 1.0 / len(self._live)
        wall_s = share * (time.perf_counter() - begin)
        compile_s = share * (self._packed[0].paired.compile_s - compiled)
        return [
            self._record(session, state, frame, wall_s=wall_s, compile_s=compile_s)
            for session, state, frame in zip(self._packed, states, frames, strict=True)
            if session in self._live
        ]

    def _record(
        self, session: RunSession, state: Any, frame: pd.DataFrame, **cost: float
    ) -> Progress:
        """Take over a run's part of a chunk; rows that can't be right are this run's end only."""
        try:
            self._pack.check(frame)
        except ValueError as error:
            return session.fail(error)
        return session.record(state, frame, **cost)

    def _reports(self, progress: list[Progress]) -> list[Report]:
        reports = [_report(s, p) for s, p in zip(self._live, progress, strict=True)]
        self._live = [s for s, p in zip(self._live, progress, strict=True) if p.status == "running"]
        started_over = [s for s in self._live if not s.is_prepared]  # their rows were damaged
        if len(self._packed) > (self._size or 1) or (self._packed and started_over):
            self._unprepared += started_over
            self._ready = [s for s in self._live if s.is_prepared] + self._ready
            self._live, self._packed = [], []
        return reports


def _paired(sessions: Sequence[RunSession]) -> list[PairedRun]:
    """Return what the sessions carry out; only paired runs can be packed."""
    return cast("list[PairedRun]", [session.paired for session in sessions])


def packs(runs: Sequence[RunConfig], size: int) -> list[list[RunConfig]]:
    """Group runs of one kind, up to `size` together, in the order in which they come.

    Example:
        >>> make = lambda rule, lr: RunConfig(workload="saddle_2d", rule=rule, lr=lr)
        >>> runs = [make("gradient_descent", lr) for lr in (0.1, 0.2, 0.3)]
        >>> [len(pack) for pack in packs([*runs, make("rmsprop", 0.1)], 2)]
        [2, 1, 1]
    """
    if size == 1:
        return [[run] for run in runs]
    result: list[list[RunConfig]] = []
    open_packs: dict[str, list[RunConfig]] = {}
    for run in runs:
        pack = open_packs.get(run.kind)
        if pack is None or len(pack) == size:
            pack = open_packs[run.kind] = []
            result.append(pack)
        pack.append(run)
    return result


def _report(session: RunSession, progress: Progress) -> Report:
    notes, session.notes = session.notes, []
    return Report(session.config.run_id, progress, notes)
