"""Reasons to end a launch before its sweep is done: a person, or another driver."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, Protocol

from cflows_ray.display import Display
from cflows_ray.lock import SweepLock


class Stoppable(Protocol):
    """A launch that can be asked to end."""

    requested: bool

    def request(self) -> None:
        """Ask for the end."""


@contextlib.contextmanager
def stop_on_signals(stopper: Stoppable, display: Display) -> Iterator[None]:
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
def stop_if_lost(lock: SweepLock, stopper: Stoppable, display: Display) -> Iterator[None]:
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
