"""Data under a sweep: looked at beforehand, found from any folder, and told when replaced."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from cflows_ray.store.checkpoint import Checkpoints
from cflows_ray.store.storage import Storage
from cflows_ray.store.tables import Results
from cflows_ray.sweep import Execution, Grid, SweepConfig
from cflows_ray.sweep.data import absolute_options, fingerprint, with_absolute_paths
from cflows_ray.sweep.plan import clear_the_way, make_plan
from cflows_ray.sweep.run_config import RunConfig
from cflows_ray.sweep.session import RunSession
from tests.sweep.fake_run import FakePaired, FakeState, build_fake
from tests.sweep.launches import stopped
from tests.sweep.tables import assert_same_tables, read_tables


def write_task(file: Path, seed: int, rows: int = 8, targets: int | None = None) -> None:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(targets or rows, 1)).astype(np.float32)
    np.savez(file, x=rng.normal(size=(rows, 2)).astype(np.float32), y=y)


def npz_run(file: Path | str, **changes: object) -> RunConfig:
    given = {"rule": "gradient_descent", "lr": 0.1, "steps": 25, **changes}
    return RunConfig(workload="npz", workload_options={"path": str(file)}, **given)  # type: ignore[arg-type]


def npz_sweep(folder: Path, **changes: object) -> SweepConfig:
    options = {"path": str(folder / "task.npz")}
    grid = Grid("npz", "gradient_descent", lrs=(0.1, 0.2), workload_options=options)
    execution = Execution(storage=str(folder / "results"), chunk_steps=10)
    given = {"name": "s", "grids": (grid,), "steps": 25, "execution": execution, **changes}
    return SweepConfig(**given)  # type: ignore[arg-type]


def open_session(folder: Path, run: RunConfig, absolute: RunConfig | None = None) -> RunSession:
    storage = Storage(str(folder / "results"), "s")
    settings = {"sweep": "s", "storage": storage, "chunk_steps": 10, "build": build_fake}
    return RunSession(run, absolute=absolute, **settings)  # type: ignore[arg-type]


def finish(session: RunSession) -> None:
    while session.advance().status == "running":
        pass


def test_the_row_has_the_fingerprint_and_the_id_has_not(tmp_path: Path) -> None:
    file = tmp_path / "task.npz"
    write_task(file, 1)
    run = npz_run(file)
    first, run_id = fingerprint(run), run.run_id
    finish(open_session(tmp_path, run))
    row = Results(Storage(str(tmp_path / "results"), "s")).finished()[run_id]
    assert row["data"] == first
    assert first is not None
    write_task(file, 2)
    assert fingerprint(run) != first
    assert npz_run(file).run_id == run_id
    no_data = RunConfig(workload="saddle_2d", rule="gradient_descent", lr=0.1, steps=25)
    finish(open_session(tmp_path, no_data))
    rows = Results(Storage(str(tmp_path / "results"), "s")).finished()
    assert rows[no_data.run_id]["data"] is None


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path) -> None:
    """It starts over, and its table is that of the present data alone."""
    file, fresh = tmp_path / "task.npz", tmp_path / "fresh"
    write_task(file, 1)
    run = npz_run(file)

    def depends_on_data(config: RunConfig) -> tuple[FakePaired, FakeState]:
        paired, state = build_fake(config)
        shift = np.load(file)["y"].sum() % 0.01
        return paired, state._replace(point=state.point + shift)

    def session(folder: Path) -> RunSession:
        opened = open_session(folder, run)
        opened._build = depends_on_data
        return opened

    begun = session(tmp_path)
    assert begun.advance().step == 10
    write_task(file, 2)
    again = session(tmp_path)
    assert again.notes == ["resumes at step 10"]
    assert again.advance().step == 10, "from the beginning, not on to 20"
    assert "data have been replaced since its checkpoint; starts over" in again.notes
    finish(again)
    finish(session(fresh))
    assert_same_tables(fresh / "results" / "s", tmp_path / "results" / "s")
    assert read_tables(tmp_path / "results" / "s")["runs"]["data"].to_pylist() == [fingerprint(run)]


def test_the_same_data_under_another_time_go_on(tmp_path: Path) -> None:
    file = tmp_path / "task.npz"
    write_task(file, 1)
    run = npz_run(file)
    open_session(tmp_path, run).advance()
    write_task(file, 1)
    again = open_session(tmp_path, run)
    assert again.advance().step == 20
    assert again.notes == ["resumes at step 10"]


def test_a_checkpoint_from_before_there_were_fingerprints_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "task.npz"
    write_task(file, 1)
    run = npz_run(file)
    open_session(tmp_path, run).advance()
    checkpoints = Checkpoints(Storage(str(tmp_path / "results"), "s"), run.run_id)
    checkpoint, _ = checkpoints.latest()
    assert checkpoint is not None
    old = {name: value for name, value in checkpoint.facts.items() if name != "data"}
    checkpoints.save(dataclasses.replace(checkpoint, facts=old))
    assert open_session(tmp_path, run).advance().step == 20


def ended_sweep(folder: Path) -> tuple[SweepConfig, Storage]:
    """Return a sweep whose runs have ended on one data set, which has been replaced since."""
    write_task(folder / "task.npz", 1)
    sweep = npz_sweep(folder)
    for run in sweep.runs:
        finish(open_session(folder, run))
    write_task(folder / "task.npz", 2)
    return sweep, Storage(sweep.execution.storage, "s")


def test_ended_runs_of_other_data_are_not_called_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, _ = ended_sweep(tmp_path)
    assert stopped(sweep) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "2 ended runs were of data replaced since (npz(task.npz)/mlp; fingerprint " in error
    assert "--retry-changed" in error
    assert "--accept-changed" in error
    assert stopped(sweep, "--dry-run") == 0
    assert "2 ended runs were of data replaced since" in " ".join(capsys.readouterr().out.split())
    assert stopped(sweep, "--accept-changed") == 0
    write_task(tmp_path / "task.npz", 1)
    assert stopped(sweep) == 0, "the data of then are back"


def test_a_further_learning_rate_does_not_hide_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the ended runs are not asked for any more."""
    sweep, storage = ended_sweep(tmp_path)
    other = dataclasses.replace(sweep.grids[0], lrs=(0.4,))
    plan = make_plan(dataclasses.replace(sweep, grids=(other,)), storage)
    assert len(plan.changed) == 2
    assert not plan.left_with_other_data
    assert "2 ended runs were of data replaced since" in " ".join(plan.lines())
    wider = dataclasses.replace(sweep.grids[0], lrs=(0.1, 0.4))
    assert stopped(dataclasses.replace(sweep, grids=(wider,))) == 2
    assert "data replaced since" in capsys.readouterr().err


def test_data_that_are_gone_leave_ended_runs_alone(tmp_path: Path) -> None:
    sweep, storage = ended_sweep(tmp_path)
    (tmp_path / "task.npz").unlink()
    plan = make_plan(sweep, storage)
    assert not plan.changed
    assert len(plan.ended) == 2


def test_runs_of_other_data_can_run_again(tmp_path: Path) -> None:
    sweep, storage = ended_sweep(tmp_path)
    plan = make_plan(sweep, storage, retry_changed=True)
    assert [run.run_id for run in plan.retried] == [run.run_id for run in sweep.runs]
    assert not plan.left_with_other_data
    # another driver has run one of them again since
    first, second = sweep.runs
    Results(storage).forget_runs([first.run_id])
    finish(open_session(tmp_path, first))
    plan = clear_the_way(plan, storage)
    assert set(plan.ended) == {first.run_id}
    assert plan.todo == (second,)
    assert set(Results(storage).finished()) == {first.run_id}


@pytest.mark.parametrize(
    ("rows", "targets", "message"),
    [
        (8, 7, "x and y must be of one length, got (8, 2) and (7, 1)"),
        (0, 0, "n >= 1"),
        (None, None, "task.npz"),
    ],
)
def test_data_are_looked_at_before_ray_is_loaded(
    tmp_path: Path,
    rows: int | None,
    targets: int | None,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "cflows_ray.sweep.tune", None)  # importing it would raise
    if rows is not None and targets is not None:
        write_task(tmp_path / "task.npz", 1, rows, targets)
    assert stopped(npz_sweep(tmp_path)) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert message in error


def test_relative_paths_are_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id and the row say what was given; what is opened does not depend on the folder."""
    write_task(tmp_path / "task.npz", 1)
    monkeypatch.chdir(tmp_path)
    run = npz_run("task.npz")
    here = absolute_options([run, npz_run("task.npz", lr=0.3), npz_run(tmp_path / "task.npz")])
    assert len(json.loads(here)) == 1
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    absolute = with_absolute_paths(run, here)
    assert absolute.workload_options["path"] == str(tmp_path / "task.npz")
    opened: list[RunConfig] = []
    session = open_session(tmp_path, run, absolute)
    session._build = lambda config: (opened.append(config), build_fake(config))[1]  # type: ignore[func-returns-value]
    finish(session)
    assert opened == [absolute]
    row = Results(Storage(str(tmp_path / "results"), "s")).finished()[run.run_id]
    assert json.loads(row["workload_options"]) == {"path": "task.npz"}
    assert row["data"] == fingerprint(npz_run(tmp_path / "task.npz"))


def test_labels_tell_runs_apart() -> None:
    assert str(npz_run("/data/one.npz")) == "npz(one.npz)/mlp/mse gradient_descent lr=0.1 seed=0"
    run = RunConfig(
        "digits_mlp",
        "rmsprop",
        lr=0.1,
        beta2=0.9,
        schedule="linear_warmup:100",
        bias_correction=True,
    )
    assert str(run) == (
        "digits_mlp/mse rmsprop lr=0.1 schedule=linear_warmup:100 beta2=0.9 "
        "bias_correction=True seed=0"
    )
    plain = RunConfig("saddle_2d", "rmsprop", lr=0.1, seed=3)
    assert str(plain) == "saddle_2d/mse rmsprop lr=0.1 seed=3"
