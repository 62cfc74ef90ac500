"""One driver at a time on a sweep's folder: a small file with an owner and a heartbeat.

The lock is a file on the storage itself, so that it works between machines and on object stores.
Its owner renews it every few seconds; it is free when its owner's process is gone (on the same
machine) or when it has not been renewed for a while (on another one). As clocks of two machines may
differ, whoever would take a lock that looks old watches first whether it is still renewed. On a
local folder the taking is guarded by a kernel lock and exact. On an object store, where there is
none, the taker waits and looks again whether the lock is still its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cflows_ray.store.storage import Storage, StorageError

LOCK = "_lock.json"
RENEW_S = 5.0
STALE_S = 60.0
WATCH_S, LOOK_S = 3 * RENEW_S, 1.0  # how long, and how often, a lock that looks old is watched
SETTLE_S = 2.0  # object stores: longer than a write takes to be seen


class SweepLocked(RuntimeError):
    """Another driver works on this sweep."""


class SweepLock:
    """Held by the driver of a sweep from `acquire` to `release`.

    Attributes:
        lost: set when another driver took the lock over (ours was not renewed for long).

    Example:
        >>> import tempfile
        >>> lock = SweepLock(Storage(tempfile.mkdtemp()))
        >>> lock.acquire()
        >>> lock.release()
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self.lost = threading.Event()

    def acquire(self) -> None:
        """Take the lock; raises `SweepLocked` if a living driver holds it."""
        with self._guard():
            holder = read_lock(self._storage)
            if holder is not None and self._is_at_work(holder):
                seen = f"{_age(holder):.0f} s ago" if _looks_fresh(holder) else "just now"
                raise SweepLocked(
                    f"another driver works on {self._storage.location} (process {holder['pid']} on "
                    f"{holder['host']}, seen {seen}); wait for it or stop it"
                )
            self._write()
        if not self._storage.is_local:
            time.sleep(SETTLE_S)
            holder = read_lock(self._storage)
            if holder is None or holder["token"] != self._token:
                raise SweepLocked(f"another driver has just started on {self._storage.location}")
        self._thread = threading.Thread(target=self._renew, name="sweep-lock", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give the lock back."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(StorageError):
            holder = read_lock(self._storage)
            if holder is not None and holder["token"] == self._token:
                self._storage.delete(LOCK)

    def announce_stop(self) -> None:
        """Say in the lock that no further run is to begin."""
        self._stopping = True
        self._write_if_ours()  # if that fails, the next renewal says it

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """Keep other drivers on this machine out while looking and taking."""
        if not self._storage.is_local:
            yield
            return
        try:
            Path(self._storage.location).mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._storage.location, os.O_RDONLY)
        except OSError as error:
            message = f"cannot write {self._storage.location}: {error.strerror}"
            raise StorageError(message, lasting=True) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _is_at_work(self, holder: dict[str, Any]) -> bool:
        """Whether the driver named in a lock is at work, whatever the machines' clocks say."""
        if _is_of_this_machine(holder) or _looks_fresh(holder):
            return is_alive(holder)
        end = time.monotonic() + WATCH_S
        while time.monotonic() < end:
            time.sleep(LOOK_S)
            now = read_lock(self._storage)
            if now is None:
                return False  # given back
            if now["renewed"] != holder["renewed"]:
                return True
        return False

    def _write(self) -> None:
        record = {
            "host": socket.gethostname(),
            "processes": process_namespace(),
            "pid": os.getpid(),
            "process_started": process_start(os.getpid()),
            "renewed": time.time(),
            "token": self._token,
            "stopping": self._stopping,
        }
        self._storage.write(LOCK, json.dumps(record).encode())

    def _renew(self) -> None:
        """Renew the lock until released; notice if someone took it."""
        while not self._stop.wait(RENEW_S) and not self.lost.is_set():
            self._write_if_ours()

    def _write_if_ours(self) -> None:
        """Write the lock unless another driver has taken it."""
        # A storage that fails for a moment must not end the sweep; the next round tries again.
        with contextlib.suppress(StorageError):
            holder = read_lock(self._storage)
            if holder is not None and holder["token"] != self._token:
                self.lost.set()
            else:
                self._write()


def read_lock(storage: Storage) -> dict[str, Any] | None:
    """Return who holds the sweep's lock, or None; an unreadable lock counts as none."""
    try:
        holder = json.loads(storage.read(LOCK))
        return holder if {"host", "pid", "renewed", "token"} <= set(holder) else None
    except (FileNotFoundError, ValueError):
        return None


def is_alive(holder: dict[str, Any]) -> bool:
    """Whether the driver named in a lock is still at work; if elsewhere, by our own clock."""
    if _is_of_this_machine(holder):
        started = process_start(holder["pid"])
        return started is not None and started == holder.get("process_started")
    return _age(holder) < STALE_S


def _is_of_this_machine(holder: dict[str, Any]) -> bool:
    """Whether a lock's process number says something here."""
    return (holder["host"], holder.get("processes")) == (socket.gethostname(), process_namespace())


def _age(holder: dict[str, Any]) -> float:
    """Return the seconds since a lock was renewed, by the clocks of the two machines."""
    return float(time.time() - holder["renewed"])


def _looks_fresh(holder: dict[str, Any]) -> bool:
    """Whether a lock was renewed lately, and not in the future, as by a clock ahead of ours."""
    return abs(_age(holder)) < STALE_S


def process_namespace() -> str:
    """Name what process numbers refer to: containers on one machine may share its name."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def process_start(pid: int) -> str | None:
    """Return a process's start time in the kernel's own clock; None if there is no such process.

    Together with the number it names a process for good: numbers are used again.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        try:  # systems without /proc: the number alone must do
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return "" if not Path("/proc/self/stat").exists() else None
    state, started = text.rpartition(")")[2].split()[0], text.rpartition(")")[2].split()[19]
    return None if state == "Z" else started
