"""More runs than Tune is given at once, folded as they end, on machines that come and go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cflows_ray.store import Results, Storage, folding
from cflows_ray.sweep.config import SweepConfig
from cflows_ray.sweep.plan import Plan
from cflows_ray.sweep.run_config import RunConfig
from cflows_ray.sweep.session import RunSession
from tests.ray.conftest import Launched
from tests.sweep.fake_run import build_fake
from tests.sweep.tables import assert_same_tables

pytestmark = [pytest.mark.ray]
ROOT = Path(__file__).parents[2]


def carried_out_here(runs: tuple[RunConfig, ...], folder: Path, name: str) -> Path:
    """Return the tables of an undisturbed sweep of costless runs, made without Ray."""
    for run in runs:
        session = RunSession(
            run, sweep=name, storage=Storage(str(folder)), chunk_steps=1000, build=build_fake
        )
        while session.advance().status == "running":
            pass
    return folder


def test_trials_in_several_rounds_folded_meanwhile(
    launch: Callable[..., Launched],
    small_sweep: Callable[..., SweepConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cflows_ray.sweep import folding_thread as driver_folding
    from cflows_ray.sweep import tune
    from tests.ray.faults import plain_trial

    rounds: list[list[str]] = []
    fit_some = tune._fit_some

    def counted(sweep: Any, work: Any, *arguments: Any) -> None:
        rounds.append([run.run_id for pack in work for run in pack])
        fit_some(sweep, work, *arguments)
        # by the reader that a fold in the middle does not disturb
        ended = Results(Storage(str(folder))).finished()
        open_runs = list(folder.glob("_checkpoints/*"))
        assert set(ended) == {i for some in rounds for i in some}
        assert not open_runs

    monkeypatch.setattr(tune, "_fit_some", counted)
    monkeypatch.setattr(tune, "TRIALS_AT_ONCE", 6)
    monkeypatch.setattr(driver_folding, "EVERY_S", 0.2)
    monkeypatch.setattr(folding, "RUNS_A_PART", 4)
    monkeypatch.setattr(folding, "FEW", 0)
    sweep = small_sweep(lrs=(0.1, 0.2), seeds=tuple(range(7)), steps=12, chunk_steps=6)
    folder = Path(sweep.execution.storage, sweep.name)
    begun: list[str] = []
    start = tune._Watcher.on_trial_start

    def started(self: Any, *, trial: Any, **info: Any) -> None:
        begun.append(RunConfig(**json.loads(trial.config["runs"])[0]).run_id)
        start(self, trial=trial, **info)

    monkeypatch.setattr(tune._Watcher, "on_trial_start", started)
    result = launch(sweep, plain_trial(build_fake))
    assert [len(some) for some in rounds] == [6, 6, 2]
    planned = [run_id for some in rounds for run_id in some]
    assert planned == [run.run_id for run in Plan({}, (), sweep.runs).todo]
    # two at a time, so that two that begin together may do so either way round
    assert all(abs(begun.index(run_id) - i) <= 1 for i, run_id in enumerate(planned))
    assert not result.outcome.lost
    assert_same_tables(carried_out_here(sweep.runs, tmp_path / "expected", "small"), folder)
    assert sorted(p.name[:5] for p in folder.glob("*/*")) == ["part-"] * 8
    again = launch(sweep, plain_trial(build_fake))
    assert "at a time" not in again.text
    assert len(Results(Storage(str(folder))).finished()) == 14


def test_a_process_lost_between_two_runs_gives_up_none(
    launch: Callable[..., Launched],
    small_sweep: Callable[..., SweepConfig],
    tmp_path: Path,
) -> None:
    """Tune reports such a loss twice: that it tries again, and then that it has given up."""
    from tests.ray.faults import killed_between_trials

    sweep = small_sweep(workers=1, max_failures=1)
    result = launch(sweep, killed_between_trials(tmp_path, build_fake))
    assert (tmp_path / "killed").exists()
    assert not result.outcome.lost
    assert result.text.count("process lost; goes on from its last checkpoint") == 1
    assert "given up" not in result.text
    assert_same_tables(carried_out_here(sweep.runs, tmp_path / "expected", "small"), result.folder)


def test_no_trial_is_made_before_there_is_room_for_it() -> None:
    """Tune asks again and again; trials end in any order; machines come and go."""
    from cflows_ray.sweep.tune import _Queue

    runs = [
        RunConfig(workload="saddle_2d", rule="gradient_descent", lr=0.1, seed=seed)
        for seed in range(6)
    ]
    room = 2
    queue = _Queue([[run] for run in runs], lambda: room)
    made = [queue.suggest(name) for name in ("a", "b", "c", "c")]
    assert made[2:] == [None, None]
    queue.on_trial_complete("b", {}, error=True)
    made.append(queue.suggest("d"))
    room = 1
    queue.on_trial_complete("a")
    assert queue.suggest("e") is None
    room = 4
    made += [queue.suggest(name) for name in "efg"]
    assert queue.suggest("h") is None
    queue.on_trial_complete("d")
    assert queue.suggest("h") == queue.FINISHED
    given = [json.loads(config["runs"]) for config in made if isinstance(config, dict)]
    assert given == [[run.to_json()] for run in runs]


@pytest.mark.faults
def test_machines_lost_again_and_again(tmp_path: Path) -> None:
    """80 runs on six machines, of which five are lost: not a row is missing."""
    from tests.ray.losing import short_sweep

    done = subprocess.run(
        [sys.executable, "-m", "tests.ray.losing", str(tmp_path / "lost")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["num_lost"] >= 3
    assert found["given_up"] == {}
    runs = short_sweep(tmp_path, 80).runs
    expected = carried_out_here(runs, tmp_path / "expected", "many")
    assert_same_tables(expected, tmp_path / "lost" / "many")
    assert len(list((tmp_path / "lost" / "many" / "runs").glob("*.parquet"))) == 1
