"""Trials that are killed, or whose storage fails, at chosen moments."""

from __future__ import annotations

import errno
import functools
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cflows_ray import storage
from cflows_ray.session import RunSession, build_paired
from cflows_ray.tune import PairedTrial


def killed_trial(
    kill_at: Mapping[str, int], marks: Path, build: Callable[[Any], Any] = build_paired
) -> type[PairedTrial]:
    """Return a trial whose process is killed once (SIGKILL) at a run's given change on storage.

    Args:
        kill_at: number of the change, counted from the run's start, by run id.
        marks: folder with a file for every kill that has happened, so that it happens once.
        build: makes the paired run.
    """

    class KilledTrial(PairedTrial):
        open_session = staticmethod(functools.partial(RunSession, build=build))

        def _open(self) -> RunSession:
            storage.on_event = _Killer(dict(kill_at), marks)
            return super()._open()

    return KilledTrial


class _Killer:
    """Counts the changes of the run that this process carries out."""

    def __init__(self, kill_at: dict[str, int], marks: Path) -> None:
        self._kill_at = kill_at
        self._marks = marks
        self._counts: dict[str, int] = {}

    def __call__(self, event: str, path: str) -> None:
        for run_id, moment in self._kill_at.items():
            if run_id in path:
                count = self._counts[run_id] = self._counts.get(run_id, -1) + 1
                mark = self._marks / run_id
                if count == moment and not mark.exists():
                    mark.write_text(f"{event} {path}")
                    os.kill(os.getpid(), signal.SIGKILL)


def plain_trial(build: Callable[[Any], Any]) -> type[PairedTrial]:
    """Return a trial of another paired run."""

    class PlainTrial(PairedTrial):
        open_session = staticmethod(functools.partial(RunSession, build=build))

    return PlainTrial


def full_disk_trial(run_id: str, build: Callable[[Any], Any]) -> type[PairedTrial]:
    """Return a trial that finds the disk full from a run's second checkpoint on."""

    class FullDiskTrial(PairedTrial):
        open_session = staticmethod(functools.partial(RunSession, build=build))

        def _open(self) -> RunSession:
            storage.on_event = _FullDisk(run_id)
            return super()._open()

    return FullDiskTrial


class _FullDisk:
    """Lets a run's first checkpoint through, and then nothing."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._full = False

    def __call__(self, event: str, path: str) -> None:
        if event == "written" and f"{self._run_id}/step-" in path:
            self._full = True
        elif event == "half written" and self._full:
            raise OSError(errno.ENOSPC, "No space left on device")
