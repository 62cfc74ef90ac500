"""Pilots on a cluster: made before the runs that need them, once, also where a process is lost."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cflows_ray.checks import ConfigError
from cflows_ray.store.lock import SweepLock, SweepLocked
from cflows_ray.store.storage import Storage
from cflows_ray.store.tables import Results
from cflows_ray.sweep import AroundEdge, Execution, Grid, SweepConfig
from cflows_ray.sweep.cli import launch as launch_study
from cflows_ray.sweep.display import Display
from cflows_ray.sweep.options import Options
from cflows_ray.sweep.pilot import recorded

pytestmark = [pytest.mark.ray]


def study(folder: Path, cache: str = "") -> SweepConfig:
    grid = Grid("saddle_2d", "gradient_descent", lrs=AroundEdge((0.5, 0.9), steps=10))
    execution = Execution(storage=str(folder), compile_cache=cache)
    return SweepConfig("edge", (grid,), seeds=(0, 1), steps=6, execution=execution)


def launched(sweep: SweepConfig) -> tuple[int, str]:
    file = io.StringIO()
    return launch_study(sweep, Options(), Console(file=file, width=200)), file.getvalue()


def test_a_study_around_the_edge(cluster: None, compile_cache: str, tmp_path: Path) -> None:  # noqa: ARG001
    sweep = study(tmp_path, compile_cache)
    storage = Storage(str(tmp_path), "edge")
    code, text = launched(sweep)
    assert code == 0
    assert "1 pilots: 1 to make, for 4 runs" in text
    (record,) = recorded(sweep.pilots, storage).values()
    rows = Results(storage).finished()
    lrs = {row["lr"] for row in rows.values()}
    assert lrs == {float(f"{f * record['lr']:.8g}") for f in (0.5, 0.9)}
    assert len(rows) == 4
    code, text = launched(sweep)  # the record is used again: nothing is new
    assert code == 0
    assert "1 pilots: 0 to make" in text
    assert "4 runs: 4 finished before" in text
    assert recorded(sweep.pilots, storage) == {sweep.pilots[0].pilot_id: record}


def lost_once(settings: dict[str, Any]) -> None:
    """Die at the first try, write a record at the second."""
    mark = Path(settings["storage"]) / "died"
    if not mark.exists():
        mark.touch()
        os._exit(1)
    Storage(settings["storage"], settings["sweep"]).write("pilots/x.json", b"{}")


def refused(settings: dict[str, Any]) -> None:
    raise ConfigError(f"lr must be > 0, got {settings['sweep']}")


def made(sweep: SweepConfig, task: Any) -> None:
    from cflows_ray.sweep.tune import make_pilots, ray

    ray.cloudpickle.register_pickle_by_value(__import__(__name__, fromlist=["x"]))
    storage = Storage(sweep.execution.storage, sweep.name)
    display = Display(sweep.name, (), {}, Console(file=io.StringIO()))
    make_pilots(sweep, sweep.pilots, storage, display, task=task)


def test_a_lost_process_is_tried_again(cluster: None, tmp_path: Path) -> None:  # noqa: ARG001
    made(study(tmp_path), lost_once)
    assert (tmp_path / "edge" / "pilots" / "x.json").exists()


def test_a_mistake_is_told_and_the_lock_is_free(cluster: None, tmp_path: Path) -> None:  # noqa: ARG001
    with pytest.raises(ConfigError, match=r"^lr must be > 0, got edge$"):
        made(study(tmp_path), refused)
    lock = SweepLock(Storage(str(tmp_path), "edge"))
    lock.acquire()
    try:
        with pytest.raises(SweepLocked):
            made(study(tmp_path), refused)
    finally:
        lock.release()
