"""Trials that are killed, or whose storage fails, at chosen moments."""

from __future__ import annotations

import errno
import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cflows_ray.store import storage
from cflows_ray.sweep.pack_session import PackSession
from cflows_ray.sweep.session import RunSession, build_paired
from cflows_ray.sweep.tune import PairedTrial
from tests.ray.moments import Moment


def killed_trial(
    kill_at: Mapping[str, Moment], marks: Path, build: Callable[[Any], Any] = build_paired
) -> type[PairedTrial]:
    """Return a trial whose process is killed once (SIGKILL) at a moment in each run.

    Args:
        kill_at: the moment, by run id.
        marks: folder with a file for every kill that has happened, so that it happens once; it
            says where the process was.
        build: makes the paired run.
    """

    class KilledTrial(PairedTrial):
        open_session = staticmethod(functools.partial(RunSession, build=build))

        def _open(self) -> PackSession:
            killer = _Killer(dict(kill_at), marks)
            storage.on_event = killer.changed
            session = super()._open()
            for member in session.members:
                killer.watch(member)
            return session

    return KilledTrial


class _Killer:
    """Counts what the run that this process carries out does, and kills it at its moment."""

    def __init__(self, kill_at: dict[str, Moment], marks: Path) -> None:
        self._kill_at = kill_at
        self._marks = marks
        self._changes: dict[str, int] = {}

    def changed(self, event: str, path: str) -> None:
        """Take note of a change on storage."""
        for run_id, moment in self._kill_at.items():
            if run_id in path:
                count = self._changes[run_id] = self._changes.get(run_id, -1) + 1
                if moment.kind == "change" and count == moment.number:
                    self._kill(run_id, f"{event} {path}")

    def watch(self, session: RunSession) -> None:
        """Watch what a run computes and saves."""
        run_id = session.config.run_id
        moment = self._kill_at.get(run_id)
        if moment is None or moment.kind == "change" or (self._marks / run_id).exists():
            return
        if moment.kind == "orbax":
            import orbax.checkpoint as ocp

            ocp.StandardCheckpointer.save = self._deadly(  # type: ignore[method-assign]
                ocp.StandardCheckpointer.save, run_id, moment
            )
            return
        build = session._build

        def built(config: Any) -> Any:
            paired, state = build(config)
            paired.advance = self._deadly(paired.advance, run_id, moment)
            return paired, state

        session._build = built

    def _deadly(self, function: Callable[..., Any], run_id: str, moment: Moment) -> Any:
        """Return the function with a kill in its n-th call, which does not come to its end."""
        calls = iter(range(10**6))

        @functools.wraps(function)
        def deadly(*arguments: Any, **named: Any) -> Any:
            if next(calls) != moment.number:
                return function(*arguments, **named)
            place = f"{moment.kind} {moment.number} after {moment.delay_s:.4f} s"
            threading.Timer(moment.delay_s, self._kill, (run_id, place)).start()
            function(*arguments, **named)
            time.sleep(60)
            raise AssertionError("not killed")

        return deadly

    def _kill(self, run_id: str, place: str) -> None:
        mark = self._marks / run_id
        if not mark.exists():
            mark.write_text(place)
            os.kill(os.getpid(), signal.SIGKILL)


def killed_between_trials(marks: Path, build: Callable[[Any], Any]) -> type[PairedTrial]:
    """Return a trial whose process is killed once, when it is to take the next runs.

    Args:
        marks: folder for a file that says that it has happened.
        build: makes the paired run.
    """

    class KilledBetweenTrials(PairedTrial):
        open_session = staticmethod(functools.partial(RunSession, build=build))

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            mark = marks / "killed"
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().reset_config(new_config)

    return KilledBetweenTrials


def plain_trial(build: Callable[[Any], Any]) -> type[PairedTrial]:
    """Return a trial of another paired run."""

    class PlainTrial(PairedTrial):
        open_session = staticmethod(functools.partial(RunSession, build=build))

    return PlainTrial


def failing_storage_trial(
    run_id: str, build: Callable[[Any], Any], number: int = errno.ENOSPC
) -> type[PairedTrial]:
    """Return a trial whose storage refuses every write from a run's first checkpoint on."""

    class FailingStorageTrial(PairedTrial):
        open_session = staticmethod(functools.partial(RunSession, build=build))

        def _open(self) -> PackSession:
            storage.on_event = _FailingStorage(run_id, number)
            return super()._open()

    return FailingStorageTrial


class _FailingStorage:
    """Lets a run's first checkpoint through, and then nothing."""

    def __init__(self, run_id: str, number: int) -> None:
        self._run_id = run_id
        self._number = number
        self._fails = False

    def __call__(self, event: str, path: str) -> None:
        if event == "written" and f"{self._run_id}/step-" in path:
            self._fails = True
        elif event == "half written" and self._fails:
            raise OSError(self._number, os.strerror(self._number))
