"""What a person meets at the command line of a study, before anything runs."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cflows_ray.store.storage import Storage
from cflows_ray.store.tables import Results
from cflows_ray.sweep.config import Grid, SweepConfig
from cflows_ray.sweep.display import Display
from cflows_ray.sweep.options import apply, parse
from cflows_ray.sweep.plan import make_plan
from cflows_ray.sweep.session import RunSession
from tests.sweep.fake_run import build_fake

ROOT = Path(__file__).parents[2]
HEAD = "from cflows_ray.sweep import Execution, Grid, SweepConfig, main\n"
GRID = "Grid(workload='saddle_2d', rule='gradient_descent', lrs=(0.1, 0.2))"


def study(folder: Path, text: str) -> list[str]:
    """Write a study's file; return the command that launches it."""
    (folder / "study.py").write_text(HEAD + text)
    return [sys.executable, "study.py", "--dry-run"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "Grid(workload='saddle_2d', rule='gradient_descent', lrs=(-1,))",
            "lrs must be > 0, got -1 (study.py, line 2)",
        ),
        (
            f"SweepConfig(\n    name='x', grids=({GRID},), steps=0)",
            "steps must be an integer >= 1, got 0 (study.py, line 2)",
        ),
        (
            "def make():\n    return Execution(workers=0)\nmake()",
            "workers must be an integer >= 1, got 0 (study.py, line 3)",
        ),
        (
            "Grid(workload='saddle_2d', rule='gradient_descent', lr=0.1)",
            "Grid.__init__() got an unexpected keyword argument 'lr' (study.py, line 2)",
        ),
        (
            "from cflows_ray.sweep import RunConfig\n"
            "RunConfig('saddle_2d', 'rmsprop', lr=0.1, beta3=1)",
            "RunConfig.__init__() got an unexpected keyword argument 'beta3' (study.py, line 3)",
        ),
    ],
)
def test_mistakes_in_the_studys_file(tmp_path: Path, text: str, message: str) -> None:
    """One line with the place, exit code 2, no traceback."""
    found = subprocess.run(study(tmp_path, text), capture_output=True, text=True, cwd=tmp_path)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == f"error: {message}\n"


@pytest.mark.parametrize(
    "text", ["1 / 0", "len(3)", "from cflows_ray.checks import nothing", "int('x')"]
)
def test_other_mistakes_keep_their_traceback(tmp_path: Path, text: str) -> None:
    found = subprocess.run(study(tmp_path, text), capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 1
    assert found.stderr.startswith("Traceback")


@pytest.mark.filterwarnings("ignore")
def test_ray_submit_gives_a_study_its_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ray submit cluster.yaml study.py -- --flag`: what Ray would copy and run on the head.

    Only the machines are left out: the copy and the command happen in a folder here.
    """
    from click.testing import CliRunner
    from ray.scripts import scripts

    home = tmp_path / "home"
    home.mkdir()
    study(tmp_path, f"main(SweepConfig(name='x', grids=({GRID},)))")
    copied: list[tuple[str, str]] = []
    commands: list[str] = []

    def rsync(config: str, source: str, target: str, *_: Any, **__: Any) -> None:  # noqa: ARG001
        copied.append((source, target))
        (home / target.removeprefix("~/")).write_bytes(Path(source).read_bytes())

    monkeypatch.setattr(scripts, "rsync", rsync)
    monkeypatch.setattr(scripts, "exec_cluster", lambda *_, cmd, **__: commands.append(cmd))
    arguments = [str(ROOT / "cluster.yaml"), str(tmp_path / "study.py"), "--", "--lrs", "0.3"]
    arguments += ["--storage", "s3://bucket/results", "--dry-run", "--verbose"]
    arguments += ["--seeds", "7"]
    result = CliRunner().invoke(scripts.submit, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert copied == [(str(tmp_path / "study.py"), "~/study.py")]
    assert len(commands) == 1
    words = commands[0].replace("s3://bucket/results", str(tmp_path / "results")).split()
    assert words[:2] == ["python", "~/study.py"]
    words[:2] = [sys.executable, str(home / "study.py")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=home)
    assert done.returncode == 0, done.stderr
    assert f"x in {tmp_path}/results/x" in done.stdout
    assert "saddle_2d/mse gradient_descent lr=0.3 seed=7" in done.stdout


# What a launch would do ---------------------------------------------------------------------


def sweep(lrs: tuple[float, ...], seeds: tuple[int, ...] = (0,), **shared: Any) -> SweepConfig:
    grid = Grid(workload="saddle_2d", rule="gradient_descent", lrs=lrs)
    return SweepConfig(name="s", grids=(grid,), seeds=seeds, **{"steps": 25, **shared})


@pytest.fixture
def launched(tmp_path: Path) -> Storage:
    """Return the folder of a sweep of which one run has ended and one has begun."""
    storage = Storage(str(tmp_path), "s")
    before = sweep((0.1, 0.2))
    Results(storage).write_sweep(before.to_json())
    for run, chunks in zip(before.runs, (100, 1), strict=True):
        session = RunSession(run, sweep="s", storage=storage, chunk_steps=10, build=build_fake)
        for _ in range(chunks):
            if session.advance().status != "running":
                break
    return storage


def test_the_same_sweep_again(launched: Storage) -> None:
    plan = make_plan(sweep((0.1, 0.2)), launched)
    lines = plan.lines()
    assert lines[0] == "2 runs: 1 finished before, 1 to resume"
    assert len(lines) == 2
    assert lines[1].startswith("estimated from the runs that have finished: about ")
    assert [plan.what(run) for run in plan.todo] == ["resume at step 10"]


def test_what_has_not_begun_is_not_new(tmp_path: Path) -> None:
    """A launch that was cut off before it came to all of its runs, launched again."""
    storage = Storage(str(tmp_path), "s")
    before = sweep((0.1, 0.2), (0, 1))
    Results(storage).write_sweep(before.to_json())
    session = RunSession(
        before.runs[0], sweep="s", storage=storage, chunk_steps=10, build=build_fake
    )
    session.advance()
    lines = make_plan(before, storage).lines()
    assert lines[0] == "4 runs: none done before, 1 to resume, 3 new"
    assert not any(line.startswith("new:") for line in lines)


def test_a_changed_sweep_says_what_is_new_and_what_is_not_asked_for(launched: Storage) -> None:
    plan = make_plan(sweep((0.2, 0.3, 0.4)), launched)
    assert plan.lines()[:3] == [
        "3 runs: none done before, 1 to resume, 2 new",
        "new: lr 0.3, 0.4",
        "1 ended run on storage is no longer asked for (lr 0.1); what there is stays",
    ]
    plan = make_plan(sweep((0.1, 0.2), (0, 1), steps=30), launched)
    assert plan.lines()[:3] == [
        "4 runs: none done before, 4 new",
        "new: seed 1; steps 30",
        "1 ended run and 1 begun run on storage are no longer asked for (steps 25); "
        "what there is stays",
    ]
    assert {plan.what(run) for run in plan.todo} == {"run"}


def test_the_estimate_counts_what_is_left(launched: Storage) -> None:
    """15 of 25 steps are left of the run that has begun; unknown kinds have no estimate."""
    row = next(iter(Results(launched).finished().values()))
    estimate = make_plan(sweep((0.1, 0.2)), launched).estimate_s()
    assert estimate == pytest.approx(row["wall_s"] * 15 / 25)
    other = make_plan(sweep((0.1, 0.2), flows=("central",)), launched)
    assert other.estimate_s() is None
    assert any("no estimate" in line for line in other.lines())


# While it runs ------------------------------------------------------------------------------


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_seen_of_running_runs(terminal: bool) -> None:
    """Loss and effective sharpness of those that run; what was stopped does not run."""
    runs = sweep((0.1, 0.2, 0.3), (0, 1)).runs
    console = Console(file=io.StringIO(), force_terminal=terminal, width=150)
    display = Display("s", runs, {}, console)
    display.start()
    for run in runs[:5]:
        display.started(run.run_id)
    result = {"step": 10, "advanced": 10, "status": "running"}
    for run in runs[:4]:
        display.progressed(
            run.run_id, {**result, "train_loss": 0.25, "effective_sharpness": 1.987654}
        )
    display.left(runs[1].run_id)
    display.given_up(runs[2].run_id)
    display.tick(force=True)
    line = display.summary()
    display.all_left()
    assert "running" not in display.summary()
    display.stop()
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert line.startswith("0/6 runs done, 3 running, 1 given up")
    if not terminal:
        one = "gradient_descent lr=0.1 seed=0 step 10 loss 0.25 sharpness 1.988"
        other = "gradient_descent lr=0.2 seed=1 step 10 loss 0.25 sharpness 1.988"
        assert f"{line}; {one}; {other}\n" in text


def test_a_dash_dash_before_the_options_is_left_out() -> None:
    """It stays where a shell or a launcher hands on what was written for `ray submit`."""
    before = sweep((0.1,))
    assert apply(before, parse(before, ["--", "--lrs", "0.3"])).runs[0].lr == 0.3
