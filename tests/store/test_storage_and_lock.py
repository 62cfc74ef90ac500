"""Storage and the lock on a sweep's folder."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cflows_ray.checks import ConfigError
from cflows_ray.store import lock as lock_module
from cflows_ray.store import storage as storage_module
from cflows_ray.store.lock import LOCK, SweepLock, SweepLocked, process_start
from cflows_ray.store.storage import Storage, StorageError
from tests.store.storage_contract import check_storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path), "s")


# Storage ------------------------------------------------------------------------------------


def test_a_folder_as_storage(storage: Storage, tmp_path: Path) -> None:
    assert storage.location == f"{tmp_path}/s"
    check_storage(storage)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    storage: Storage, monkeypatch: Any
) -> None:
    def full(event: str, path: str) -> None:  # noqa: ARG001
        if event == "half written":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    storage.write("a/b", b"one")
    monkeypatch.setattr(storage_module, "on_event", full)
    with pytest.raises(StorageError, match=r"cannot write \S+/a/b: No space left") as info:
        storage.write("a/b", b"two")
    assert info.value.lasting
    assert storage.read("a/b") == b"one"
    assert storage.names("", recursive=True) == ["a/b"]


def test_relative_folders_are_made_absolute(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert Storage("results", "s").location == f"{tmp_path}/results/s"


def test_errors_name_the_file_and_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write \S+/file/a/b: ") as info:
        Storage(str(tmp_path / "file")).write("a/b", b"")
    assert "\n" not in str(info.value)
    with pytest.raises(ConfigError, match="storage must be a folder or URI, got 'nope://x'"):
        Storage("nope://x")


def test_storage_errors_cross_processes() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(StorageError("cannot write x", True)))
    assert (str(error), error.lasting) == ("cannot write x", True)


# Lock ---------------------------------------------------------------------------------------


def test_one_driver_at_a_time(storage: Storage) -> None:
    first = SweepLock(storage)
    first.acquire()
    with pytest.raises(SweepLocked, match=rf"process {os.getpid()} on .* wait for it or stop it"):
        SweepLock(storage).acquire()
    first.release()
    second = SweepLock(storage)
    second.acquire()
    second.release()
    assert not storage.exists(LOCK)


def test_of_many_at_once_one_gets_it(storage: Storage) -> None:
    locks = [SweepLock(storage) for _ in range(8)]
    refused = []

    def try_it(lock: SweepLock) -> None:
        try:
            lock.acquire()
        except SweepLocked:
            refused.append(lock)

    threads = [threading.Thread(target=try_it, args=(lock,)) for lock in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7
    for lock in locks:
        lock.release()


def test_a_dead_drivers_lock_is_taken_over(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed on this machine: at once. On another machine: when it was not renewed for long."""
    monkeypatch.setattr(lock_module, "WATCH_S", 0.2)
    monkeypatch.setattr(lock_module, "LOOK_S", 0.05)
    code = (
        "import os, sys; from cflows_ray.store.lock import SweepLock; "
        "from cflows_ray.store.storage import Storage; "
        f"SweepLock(Storage({storage.location!r})).acquire(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    holder = json.loads(storage.read(LOCK))
    assert holder["pid"] != os.getpid()
    lock = SweepLock(storage)
    lock.acquire()
    lock.release()
    # A number used again by another process is not the driver.
    mine = {**holder, "pid": os.getpid()}
    assert process_start(os.getpid()) != holder["process_started"]
    storage.write(LOCK, json.dumps(mine).encode())
    lock = SweepLock(storage)
    lock.acquire()
    lock.release()
    elsewhere = {**holder, "host": "elsewhere", "renewed": time.time() - 30}
    storage.write(LOCK, json.dumps(elsewhere).encode())
    with pytest.raises(SweepLocked, match=r"on elsewhere, seen 30 s ago"):
        SweepLock(storage).acquire()
    for renewed in (time.time() - 61, time.time() + 3600):  # by a clock that was ahead
        storage.write(LOCK, json.dumps({**elsewhere, "renewed": renewed}).encode())
        lock = SweepLock(storage)
        lock.acquire()
        lock.release()


@pytest.mark.parametrize("ahead_s", [-3600.0, 3600.0])
def test_a_driver_whose_clock_differs_is_not_taken_for_dead(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    """It is known by its renewals; of a clock ahead of ours too, which is no reason to trust it."""
    monkeypatch.setattr(lock_module, "WATCH_S", 60.0)
    monkeypatch.setattr(lock_module, "LOOK_S", 0.01)
    over = threading.Event()

    def renew() -> None:
        while not over.wait(0.01):
            record = {"host": "elsewhere", "pid": 7, "renewed": time.time() + ahead_s, "token": "x"}
            storage.write(LOCK, json.dumps(record).encode())

    thread = threading.Thread(target=renew)
    thread.start()
    while not storage.exists(LOCK):
        time.sleep(0.01)
    try:
        with pytest.raises(SweepLocked, match=r"\(process 7 on elsewhere, seen just now\)"):
            SweepLock(storage).acquire()
    finally:
        over.set()
        thread.join()


def test_a_lock_that_was_taken_over_is_noticed(storage: Storage, monkeypatch: Any) -> None:
    monkeypatch.setattr(lock_module, "RENEW_S", 0.01)
    lock = SweepLock(storage)
    lock.acquire()
    other = {**json.loads(storage.read(LOCK)), "token": "other"}
    for _ in range(100):  # a renewal that was under way may overwrite it
        storage.write(LOCK, json.dumps(other).encode())
        if lock.lost.wait(0.1):
            break
    assert lock.lost.is_set()
    lock.release()
    assert json.loads(storage.read(LOCK))["token"] == "other"
