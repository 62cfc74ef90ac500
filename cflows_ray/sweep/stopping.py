"""How a launch ends, and reasons to end it before its sweep is done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cflows_ray.store import SweepLock
from cflows_ray.sweep.display import Display

# What a trial says, in place of how its run ended, when it has to leave the run as it is.
STORAGE_FAILED = "storage failed"
NOT_BEGUN = "not begun"


@dataclass(frozen=True)
class Outcome:
    """How a launch ended.

    Attributes:
        interrupted: a person stopped it; everything is resumable.
        storage_error: why results could not be written, if that stopped it.
        lost: reasons by run id of runs that were given up after too many faults.
    """

    interrupted: bool = False
    storage_error: str | None = None
    lost: dict[str, str] = field(default_factory=dict)


class Stopping:
    """Ends a launch: each running trial at the end of its chunk, then all that wait.

    Args:
        running: ids of the trials that have a process; others keep it up to date.
        lock: of the sweep, where workers see that no further run is to begin.
    """

    def __init__(self, running: set[str], lock: SweepLock) -> None:
        self._running = running
        self._lock = lock
        self._waiting: set[str] = set()
        self.requested = False
        self.storage_error: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Give Tune nothing to save: a launch is never restored from its state."""
        return {}

    def request(self) -> None:
        """Ask for the end; running trials finish their chunk first."""
        if not self.requested:
            self._waiting = set(self._running)
            self.requested = True
            # In a thread: storage may be slow, and this may be a signal's handler.
            threading.Thread(target=self._lock.announce_stop, daemon=True).start()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial stops at this result."""
        if result.get("status") == STORAGE_FAILED:
            # Every other run would meet the same wall; none of them has lost anything.
            self.storage_error = str(result["detail"])
            self.request()
        self._waiting.discard(trial_id)
        return self.requested

    def stop_all(self) -> bool:
        """Whether no trial is to run any more."""
        return self.requested and not (self._waiting & self._running)


@contextlib.contextmanager
def stop_on_signals(stopper: Stopping, display: Display) -> Iterator[None]:
    """Turn the first Ctrl-C or SIGTERM into a request to stop; the second one stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: Any) -> None:  # noqa: ARG001
        if stopper.requested:
            raise KeyboardInterrupt
        stopper.request()
        display.note("stopping: running chunks finish and are saved (Ctrl-C again: stop at once)")

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stop_if_lost(lock: SweepLock, stopper: Stopping, display: Display) -> Iterator[None]:
    """Stop if another driver takes the sweep over (after this one was suspended for long, say)."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            if lock.lost.is_set():
                display.note("another driver has taken this sweep over; stopping")
                stopper.request()
                return

    thread = threading.Thread(target=watch, name="watch-lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
