"""Sweeps under Ray Tune, on one shared cluster."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from cflows_ray.checks import ConfigError
from cflows_ray.store.lock import SweepLock, SweepLocked, read_lock
from cflows_ray.store.storage import Storage
from cflows_ray.store.tables import Results
from cflows_ray.sweep.config import Grid, SweepConfig
from cflows_ray.sweep.display import Display
from cflows_ray.sweep.plan import make_plan
from cflows_ray.sweep.session import RunSession
from cflows_ray.workloads import data_fingerprint
from tests.ray.conftest import Launched
from tests.ray.moments import Moment
from tests.sweep.fake_run import build_fake, build_mended
from tests.sweep.tables import assert_close_tables, assert_same_tables, read_tables

pytestmark = [pytest.mark.ray]
Launch = Callable[..., Launched]
MakeSweep = Callable[..., SweepConfig]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return folders of undisturbed sweeps by what they ran, filled by the first who needs one."""
    return {"folder": tmp_path_factory.mktemp("undisturbed")}


def reference(launch: Launch, sweep: SweepConfig, kept: dict[str, Path], **how: Any) -> Path:
    """Return the tables of an undisturbed sweep of the same runs, computed once a session."""
    key = ",".join(run.run_id for run in sweep.runs)
    if key not in kept:
        folder = kept["folder"] / str(len(kept))
        execution = dataclasses.replace(sweep.execution, storage=str(folder))
        kept[key] = launch(dataclasses.replace(sweep, execution=execution), **how).folder
    return kept[key]


def fake_trial() -> Any:
    from tests.ray.faults import plain_trial

    return plain_trial(build_fake)


def test_killed_actors_change_nothing(
    launch: Launch, small_sweep: MakeSweep, undisturbed: dict[str, Path], tmp_path: Path
) -> None:
    """The real thing: SIGKILL of two actors in the middle, tables bit for bit the same."""
    from tests.ray.faults import killed_trial

    sweep = small_sweep()
    expected = reference(launch, sweep, undisturbed)
    kill_at = {
        sweep.runs[0].run_id: Moment("change", 9),
        sweep.runs[2].run_id: Moment("change", 14),
    }
    result = launch(sweep, killed_trial(kill_at, tmp_path))
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} == set(kill_at)
    assert result.text.count("process lost") == 2
    assert "resumes at step" in result.text
    assert not result.outcome.lost
    assert_same_tables(expected, result.folder)


def test_the_tables_of_an_undisturbed_sweep(
    launch: Launch, small_sweep: MakeSweep, undisturbed: dict[str, Path]
) -> None:
    sweep = small_sweep()
    folder = reference(launch, sweep, undisturbed)
    tables = read_tables(folder)
    runs = tables["runs"].to_pandas()
    assert sorted(runs["run_id"]) == sorted(run.run_id for run in sweep.runs)
    assert set(runs["status"]) == {"finished"}
    assert set(zip(runs["lr"], runs["seed"], strict=True)) == {
        (lr, seed) for lr in (0.2, 0.19) for seed in (0, 1)
    }
    # a process compiles for its first run only
    assert 1 <= (pd.read_parquet(folder / "runs")["compile_s"] > 0).sum() <= 2
    steps = tables["steps"].to_pandas()
    counts = steps.groupby(["run_id", "process"])["step"].agg(["count", "min", "max"])
    assert {tuple(row) for row in counts.to_numpy()} == {(46, 0, 45)}
    assert set(steps["process"]) == {"discrete", "midpoint", "stable", "central"}


def test_packs_make_the_same_tables(
    launch: Launch, small_sweep: MakeSweep, undisturbed: dict[str, Path], tmp_path: Path
) -> None:
    """Packs of three and one, a member that diverges among them, and an actor that is killed."""
    from tests.ray.faults import killed_trial

    lrs = (0.2, 0.19, 3.0)
    single = dataclasses.replace(small_sweep(lrs, seeds=(0,)), dtype="float64")
    sweep = dataclasses.replace(small_sweep(lrs, seeds=(0,), pack=3), dtype="float64")
    expected = reference(launch, single, undisturbed)
    killed = killed_trial({sweep.runs[1].run_id: Moment("change", 9)}, tmp_path)
    result = launch(sweep, killed)
    assert result.text.count("goes on from its last checkpoint") >= 1
    assert "in packs of up to 3 runs" in result.text
    assert not result.outcome.lost
    assert set(read_tables(result.folder)["runs"]["status"].to_pylist()) == {
        "finished",
        "diverged",
    }
    assert_close_tables(expected, result.folder, rtol=1e-6)


def test_workers_find_data_by_a_relative_path(
    launch: Launch, small_sweep: MakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They work in other folders than the driver, which says what the path means."""
    np.savez(tmp_path / "task.npz", x=np.eye(3, dtype=np.float32), y=np.ones((3, 1), np.float32))
    monkeypatch.chdir(tmp_path)
    grid = Grid("npz", "gradient_descent", lrs=(0.1,), workload_options={"path": "task.npz"})
    sweep = dataclasses.replace(small_sweep(seeds=(0,)), grids=(grid,))
    result = launch(sweep, fake_trial())
    (row,) = pd.read_parquet(result.folder / "runs").to_dict("records")
    assert (row["status"], row["run_id"]) == ("finished", sweep.runs[0].run_id)
    assert row["workload_options"] == '{"path": "task.npz"}'
    assert row["data"] == data_fingerprint("npz", {"path": str(tmp_path / "task.npz")})


def test_relaunch_runs_only_what_is_missing(launch: Launch, small_sweep: MakeSweep) -> None:
    sweep = small_sweep(lrs=(0.1, 0.2))
    first = launch(sweep, fake_trial())
    runs = first.folder / "runs"
    before = {p.name: p.stat().st_mtime_ns for p in runs.iterdir()}
    launch(sweep, fake_trial())
    assert {p.name: p.stat().st_mtime_ns for p in runs.iterdir()} == before
    missing = sweep.runs[1].run_id
    Results(Storage(str(first.folder))).forget_runs([missing])
    damaged = sweep.runs[0].run_id
    (runs / f"{damaged}.parquet").write_bytes(b"PAR1")
    wider = small_sweep(lrs=(0.1, 0.3))
    plan = make_plan(wider, Storage(str(first.folder)))
    assert len(plan.ended) == 0
    assert len(plan.fresh) == 4
    assert len(plan.unasked) == 2
    assert "2 ended runs on storage are no longer asked for" in " ".join(plan.lines())
    launch(wider, fake_trial())
    after = {p.name: p.stat().st_mtime_ns for p in runs.iterdir()}
    assert len(after) == 6
    again = {f"{missing}.parquet", f"{damaged}.parquet"}
    kept = {name: time for name, time in before.items() if name not in again}
    assert {name: after[name] for name in kept} == kept
    assert len(read_tables(first.folder)["runs"]) == 6


@pytest.mark.parametrize("failed_before", [False, True])
def test_a_plan_made_before_another_driver_was_done_undoes_nothing(
    small_sweep: MakeSweep, failed_before: bool
) -> None:
    """Between plan and lock another driver may end runs; nothing is left to do, so no Ray."""
    from cflows_ray.sweep.tune import Outcome, run_sweep

    sweep = small_sweep(lrs=(17.0,))
    storage = Storage(sweep.execution.storage, sweep.name)
    if failed_before:
        carry_out(sweep, storage, build_fake)
    plan = make_plan(sweep, storage, retry_failed=failed_before)
    assert len(plan.todo) == 2
    if failed_before:
        for run in sweep.runs:
            Results(storage).forget_runs([run.run_id])
    carry_out(sweep, storage, build_mended)
    before = read_tables(Path(storage.location))
    display = Display(sweep.name, sweep.runs, {}, Console(file=io.StringIO()))
    assert run_sweep(sweep, plan, storage, display) == Outcome()
    assert display.counts() == {"finished": 2}
    after = read_tables(Path(storage.location))
    assert all(after[name].equals(before[name]) for name in ("runs", "steps"))


def carry_out(sweep: SweepConfig, storage: Storage, build: Any) -> None:
    """End all runs, as another driver's workers would."""
    for run in sweep.runs:
        session = RunSession(run, sweep=sweep.name, storage=storage, chunk_steps=50, build=build)
        while session.advance().status == "running":
            pass


def test_divergence_failure_and_machine_errors(launch: Launch, small_sweep: MakeSweep) -> None:
    """The first two are results; the third is tried again, given up, and left for a re-launch."""
    sweep = small_sweep(lrs=(0.1, 13.0, 17.0, 19.0), seeds=(0,), max_failures=1)
    result = launch(sweep, fake_trial())
    runs = read_tables(result.folder)["runs"].to_pandas().set_index("lr")
    assert runs["status"].to_dict() == {0.1: "finished", 13.0: "diverged", 17.0: "failed"}
    assert runs["status_detail"][17.0] == "FloatingPointError: seventeen is not a learning rate"
    assert "MemoryError: not enough memory" in next(iter(result.outcome.lost.values()))
    assert "given up" in result.text
    plan = make_plan(sweep, Storage(str(result.folder)))
    assert [run.lr for run in plan.todo] == [19.0]
    plan = make_plan(sweep, Storage(str(result.folder)), retry_failed=True)
    assert [run.lr for run in plan.todo] == [19.0, 17.0]


def test_retry_failed(launch: Launch, small_sweep: MakeSweep) -> None:
    from tests.ray.faults import plain_trial

    sweep = small_sweep(lrs=(17.0,), seeds=(0,))
    launch(sweep, fake_trial())
    launch(sweep, plain_trial(build_mended))
    folder = Path(sweep.execution.storage, sweep.name)
    assert read_tables(folder)["runs"]["status"].to_pylist() == ["failed"]
    launch(sweep, plain_trial(build_mended), retry_failed=True)
    assert read_tables(folder)["runs"]["status"].to_pylist() == ["finished"]


def test_a_request_that_cannot_be_met_is_refused(launch: Launch, small_sweep: MakeSweep) -> None:
    sweep = small_sweep(gpus_per_run=2)
    with pytest.raises(ConfigError, match=r"got 1 CPU, 2 GPU; there is: 2 CPU, 0 GPU"):
        launch(sweep)
    assert not Path(sweep.execution.storage, sweep.name, "runs").exists()


def test_two_drivers(launch: Launch, small_sweep: MakeSweep) -> None:
    sweep = small_sweep()
    other = SweepLock(Storage(sweep.execution.storage, sweep.name))
    other.acquire()
    with pytest.raises(SweepLocked, match=r"another driver works on .*small \(process \d+ on"):
        launch(sweep)
    other.release()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_lasting_storage_errors_stop_the_sweep(
    launch: Launch, small_sweep: MakeSweep, undisturbed: dict[str, Path], number: int
) -> None:
    """A full disk, or one that may not be written, stops the sweep at once with one clear reason.

    Nothing that was there is damaged; mended, the sweep goes on.
    """
    from tests.ray.faults import failing_storage_trial

    expected = reference(launch, small_sweep(lrs=(0.1, 0.2)), undisturbed, trainable=fake_trial())
    sweep = small_sweep(lrs=(0.1, 0.2))
    result = launch(sweep, failing_storage_trial(sweep.runs[1].run_id, build_fake, number))
    pattern = rf"cannot write \S+/small/\S+: {os.strerror(number)}"
    assert re.fullmatch(pattern, result.outcome.storage_error)
    assert not result.outcome.interrupted
    assert not result.outcome.lost
    read_tables(result.folder)  # every file that readers look at is whole
    assert len(make_plan(sweep, Storage(sweep.execution.storage, sweep.name)).todo) >= 1
    result = launch(sweep, fake_trial())
    assert_same_tables(expected, result.folder)


def test_no_run_begins_after_a_stop(small_sweep: MakeSweep) -> None:
    """A person's stop is seen by every worker, on whatever machine, before it takes a run."""
    from cflows_ray.sweep.stopping import NOT_BEGUN, Stopping
    from cflows_ray.sweep.tune import PairedTrial

    sweep = small_sweep()
    storage = Storage(sweep.execution.storage, sweep.name)
    trial = PairedTrial.__new__(PairedTrial)
    trial._settings = {"storage": storage.base, "sweep": sweep.name}
    lock = SweepLock(storage)
    lock.acquire()
    stopping = Stopping({"a", "b"}, lock)
    with pytest.raises(KeyError):  # goes on to open the run, of which it knows nothing here
        trial.step()
    stopping.request()
    deadline = time.monotonic() + 10
    while not (read_lock(storage) or {}).get("stopping"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert trial.step() == {"done": True, "status": NOT_BEGUN}
    assert storage.names("", recursive=True) == ["_lock.json"]
    assert not stopping.stop_all()  # two are in the middle of a chunk
    assert stopping("a", {"status": "running"})
    assert not stopping.stop_all()
    assert stopping("b", {"status": "running"})
    assert stopping.stop_all()
    lock.release()
