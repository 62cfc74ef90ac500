"""Folds ended runs in a thread of the driver while a sweep goes on, and what is left at its end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from cflows_ray.store import Storage, StorageError, SweepLock, fold

# Listing the single files of a few hundred runs now and then costs nothing.
EVERY_S = 30.0


@contextlib.contextmanager
def folding_ended_runs(
    storage: Storage, lock: SweepLock, at_end: Callable[[], bool], every_s: float | None = None
) -> Iterator[None]:
    """Fold ended runs while the body goes on, and what is left when it has come to its end.

    A storage that can't be reached for a while is asked again later: single files are as good as
    folded ones. Stops when another driver takes the lock over, or when the body raises.

    Args:
        storage: the sweep's folder.
        lock: of the sweep, held.
        at_end: whether to fold at the end, asked then.
        every_s: seconds between two looks; None for `EVERY_S`.
    """
    over = threading.Event()

    def try_to_fold(*, everything: bool) -> None:
        with contextlib.suppress(StorageError):
            fold(
                storage, at_end=everything, go_on=lambda: not (over.is_set() or lock.lost.is_set())
            )

    def go_on_folding() -> None:
        while not over.wait(EVERY_S if every_s is None else every_s) and not lock.lost.is_set():
            try_to_fold(everything=False)

    thread = threading.Thread(target=go_on_folding, name="fold-runs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if at_end() and not lock.lost.is_set():
        over.clear()
        try_to_fold(everything=True)
