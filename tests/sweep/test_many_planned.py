"""Plan, status and live view of many runs: summaries, and nothing done anew for every run."""

from __future__ import annotations

import io
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cflows_ray.status import main as status_command
from cflows_ray.store import Storage
from cflows_ray.store.sweep_json import dump_sweep, load_sweep
from cflows_ray.sweep import (
    RunConfig,
    SweepConfig,
    SweepStatus,
    print_status,
    sweep_status,
)
from cflows_ray.sweep import status as status_module
from cflows_ray.sweep.display import Display
from cflows_ray.sweep.plan import kinds, make_plan
from tests.benchmarks.scale_folders import large_sweep, make
from tests.sweep.launches import stopped


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepConfig, Storage]:
    """Return a sweep of 1,000 runs, of which 900 have ended, nine failed, nine diverged."""
    sweep = large_sweep(tmp_path_factory.mktemp("many"), 1000)
    return sweep, make(sweep, "folded", ended=0.9, steps_too=False)


def counted(monkeypatch: pytest.MonkeyPatch, what: type, name: str) -> list[Any]:
    """Return a list that grows with every call of a method."""
    calls: list[Any] = []
    method = getattr(what, name)

    def counting(self: Any, *arguments: Any, **named: Any) -> Any:
        calls.append(self)
        return method(self, *arguments, **named)

    monkeypatch.setattr(what, name, counting)
    return calls


def printed(storage: Storage, **how: Any) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    print_status(sweep_status(storage), console, **how)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


# Plan ---------------------------------------------------------------------------------------


def test_a_plan_of_many_runs(
    folder: tuple[SweepConfig, Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, storage = folder
    made = counted(monkeypatch, RunConfig, "__init__")
    rows = counted(monkeypatch, RunConfig, "row")
    plan = make_plan(sweep, storage)
    assert (len(plan.ended), len(plan.fresh), len(plan.todo)) == (900, 100, 100)
    assert plan.lines(2)[0] == "1000 runs: 882 finished, 9 diverged, 9 failed before, 100 new"
    assert not any(line.startswith("new: ") for line in plan.lines())
    assert len(made) == 0  # what is known from before is not checked again
    assert len(rows) <= 2 * len({run.kind for run in sweep.runs})


def test_a_changed_study_of_many_runs_says_what_is_new(
    folder: tuple[SweepConfig, Storage],
) -> None:
    sweep, storage = folder
    more = SweepConfig("large", sweep.grids, seeds=(*sweep.seeds, 5), steps=sweep.steps)
    lines = make_plan(more, storage).lines()
    assert "new: seed 5" in lines
    fewer = SweepConfig("large", sweep.grids, seeds=(0, 1), steps=sweep.steps)
    (line,) = [x for x in make_plan(fewer, storage).lines() if "no longer" in x]
    assert line.startswith("540 ended runs on storage are no longer asked for (")
    assert "seed 2, 3, 4)" in line


def test_a_plan_on_the_terminal_is_as_long_as_there_are_workloads_and_rules(
    folder: tuple[SweepConfig, Storage], capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, storage = folder
    assert stopped(sweep, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 8
    assert lines[0] == f"large in {storage.location}"
    head, first, second = (line.split("  ") for line in lines[-3:])
    assert [word.strip() for word in head if word.strip()][3:] == [
        *("learning rates", "seeds", "runs", "done", "new"),
    ]
    rates, seeds = "100 from 0.0001 to 0.1", "0, 1, 2, 3, 4"
    for row, counts in ((first, ["500", "500"]), (second, ["500", "400", "100"])):
        assert [word.strip() for word in row if word.strip()][3:] == [rates, seeds, *counts]


def test_the_kind_is_found_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs = large_sweep(tmp_path, 200).runs
    expected = [run.kind for run in runs]
    found: list[RunConfig] = []
    kind = RunConfig.kind
    monkeypatch.setattr(
        RunConfig, "kind", property(lambda run: (found.append(run), kind.__get__(run))[1])
    )
    assert list(kinds(runs)) == expected
    assert len(found) == len(set(expected)) == 2


# sweep.json ---------------------------------------------------------------------------------


def test_sweep_json_says_once_what_runs_have_in_common(tmp_path: Path) -> None:
    record = large_sweep(tmp_path, 1000).to_json()
    text = dump_sweep({**record, "commit": None})
    assert len(text) / 1000 < 200
    found = load_sweep(text)
    assert dict(found["runs"]) == record["runs"]
    assert {k: v for k, v in found.items() if k in record and k != "runs"} == {
        k: v for k, v in record.items() if k != "runs"
    }
    before = json.dumps({"schema": "1", **record})  # written before there was "same"
    assert dict(load_sweep(before)["runs"]) == record["runs"]
    assert dict(load_sweep(dump_sweep({"name": "x", "runs": {}}))["runs"]) == {}


# Status -------------------------------------------------------------------------------------


def test_status_is_a_summary_failures_first(folder: tuple[SweepConfig, Storage]) -> None:
    _, storage = folder
    lines = printed(storage)
    assert len(lines) == 7
    assert lines[0] == "large: 900 of 1000 runs done, no driver is at work"
    # nine reasons that differ in the step alone are one
    for line, word in zip(lines[1:3], ("failed", "diverged"), strict=True):
        assert re.search(rf": {word}: step \d+ \(and 8 more like it\)$", line)
    head, first, second = (line.split() for line in lines[3:6])
    words = ["finished", "diverged", "failed", "waiting"]
    assert head == ["workload", "criterion", "rule", "runs", *words]
    assert first == ["saddle_2d", "mse", "gradient_descent", "500", "490", "5", "5"]
    assert second == ["saddle_2d", "mse", "rmsprop", "500", "392", "4", "4", "100"]


def test_status_lists_runs_when_asked(
    folder: tuple[SweepConfig, Storage], capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, storage = folder
    assert status_command([storage.location, "--verbose"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = [line for line in lines if "lr=" in line]
    assert {line.split()[0] for line in listed} == {run.run_id for run in sweep.runs}
    assert len(listed) == 1000
    words = [line.split(": ")[1] for line in listed]
    assert words == ["failed"] * 9 + ["diverged"] * 9 + ["waiting"] * 100 + ["finished"] * 882


def test_open_runs_are_not_all_listed(
    folder: tuple[SweepConfig, Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, storage = folder
    begun = {run.run_id: 10 for run in sweep.runs[900:]}
    monkeypatch.setattr(status_module, "begun_runs", lambda storage: begun)  # noqa: ARG005
    lines = printed(storage)
    assert sum("interrupted, step 10 of 160" in line for line in lines) == 10
    assert "... and 90 more interrupted; --verbose lists them" in lines


def test_groups_whose_runs_did_not_finish_come_first() -> None:
    """Failed before undefined before diverged before all that finished."""
    rules = {"gradient_descent": "finished", "rmsprop": "diverged", "adam": "undefined"}
    rules |= {"adamw": "failed"}
    runs = {rule: RunConfig(workload="saddle_2d", rule=rule, lr=0.1) for rule in rules}
    console = Console(file=io.StringIO(), width=200)
    print_status(SweepStatus("s", None, runs, rules), console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    table = [line.split()[2] for line in lines if line.startswith("saddle_2d")]
    assert table == ["adamw", "adam", "rmsprop", "gradient_descent"]


def test_status_checks_a_form_once(
    folder: tuple[SweepConfig, Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, storage = folder
    made = counted(monkeypatch, RunConfig, "__init__")
    status = sweep_status(storage)
    assert len(made) == 2  # one for each rule
    assert (len(status.runs), status.num_unknown) == (1000, 0)
    assert status.runs[next(iter(status.runs))].workload == "saddle_2d"


# Live view ----------------------------------------------------------------------------------


def test_the_live_view_keeps_only_what_runs(tmp_path: Path) -> None:
    """Whatever happens, in whatever order: its counts are those of a list of all runs."""
    runs = large_sweep(tmp_path, 100).runs
    display = Display("s", runs, {}, Console(file=io.StringIO()))
    chance = random.Random(0)
    status = dict.fromkeys([run.run_id for run in runs], "waiting")
    step = dict.fromkeys(status, 0)
    for _ in range(3000):
        run = chance.choice(runs)
        run_id, what = run.run_id, chance.random()
        if status[run_id] not in ("waiting", "running"):
            continue
        if what < 0.3:
            display.started(run_id)
            status[run_id] = "running"
        elif what < 0.7:
            step[run_id] = min(run.steps, step[run_id] + 10)
            word = "finished" if step[run_id] == run.steps else "running"
            word = "diverged" if what < 0.31 else word
            display.progressed(run_id, {"step": step[run_id], "advanced": 10, "status": word})
            status[run_id] = word
        elif what < 0.9:
            display.left(run_id)
            status[run_id] = "waiting"
        elif what < 0.92:
            display.given_up(run_id)
            status[run_id] = "given up"
        elif what < 0.93:
            display.ended({run_id: "failed"})
            status[run_id] = "failed"
        words = set(status.values())
        assert display.counts() == {w: list(status.values()).count(w) for w in words}
        open_runs = [r for r in runs if status[r.run_id] in ("waiting", "running")]
        assert display._steps_left == sum(r.steps - step[r.run_id] for r in open_runs)
        assert set(display._running) == {i for i, word in status.items() if word == "running"}
    assert {"finished", "diverged", "failed", "given up"} <= set(status.values())
    display.all_left()
    assert not display._running
