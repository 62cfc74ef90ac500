"""When the driver folds: now and then, at the end, never when the sweep is another driver's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cflows_ray.store import Storage, StorageError
from cflows_ray.sweep import folding_thread as folding

Folds = list[bool]


@pytest.fixture
def folds(monkeypatch: pytest.MonkeyPatch) -> Folds:
    """Return a list that grows with every fold by whether it was for all there is."""
    asked: Folds = []

    def fold(storage: Storage, *, at_end: bool, go_on: Callable[[], bool]) -> int:  # noqa: ARG001
        asked.append(at_end)
        if len(asked) == 1:
            raise StorageError("cannot list s3://bucket: away")
        return 0

    monkeypatch.setattr(folding, "fold", fold)
    return asked


def folding_with(tmp_path: Path, at_end: bool = True, every_s: float = 0.01) -> tuple[Any, Any]:
    lock: Any = SimpleNamespace(lost=threading.Event())
    storage = Storage(str(tmp_path))
    return folding.folding_ended_runs(storage, lock, lambda: at_end, every_s), lock


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_now_and_then_whatever_storage_says_and_at_the_end(folds: Folds, tmp_path: Path) -> None:
    context, _ = folding_with(tmp_path)
    with context:
        wait_for(lambda: len(folds) >= 3)
    assert folds[:3] == [False, False, False]
    assert folds[-1] is True
    assert folds.count(True) == 1


def test_not_at_the_end_where_storage_has_failed(folds: Folds, tmp_path: Path) -> None:
    context, _ = folding_with(tmp_path, at_end=False, every_s=100)
    with context:
        pass
    assert folds == []


def test_not_after_an_error_or_a_second_ctrl_c(folds: Folds, tmp_path: Path) -> None:
    context, _ = folding_with(tmp_path, every_s=100)
    with pytest.raises(KeyboardInterrupt), context:
        raise KeyboardInterrupt
    assert folds == []


def test_not_in_a_sweep_that_another_driver_has_taken_over(folds: Folds, tmp_path: Path) -> None:
    context, lock = folding_with(tmp_path)
    with context:
        wait_for(lambda: len(folds) >= 2)
        lock.lost.set()
        time.sleep(0.05)
        number = len(folds)
        time.sleep(0.1)
        assert len(folds) == number
    assert True not in folds
