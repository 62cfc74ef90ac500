"""Parquet, checkpoints, plan, status and display, without Ray."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from cflows_ray import status as status_module
from cflows_ray.status import print_status, sweep_status
from cflows_ray.store.checkpoint import (
    Checkpoint,
    CheckpointDamaged,
    Checkpoints,
    _from_zip,
    _to_zip,
)
from cflows_ray.store.lock import SweepLock
from cflows_ray.store.storage import Storage
from cflows_ray.store.tables import OtherSchema, Results, ResultsDamaged, steps_schema, steps_table
from cflows_ray.sweep.config import Grid, SweepConfig
from cflows_ray.sweep.display import Display, print_whole
from cflows_ray.sweep.plan import make_plan
from cflows_ray.sweep.run_config import RunConfig
from cflows_ray.sweep.session import RunSession
from cflows_ray.sweep.summaries import summary_table
from tests.sweep.fake_run import FakePaired, build_fake

GRIDS = (Grid(workload="saddle_2d", rule="gradient_descent", lrs=(0.1, 13.0, 17.0)),)
SWEEP = SweepConfig(name="s", grids=GRIDS, seeds=(0,), steps=25)


def run_fake(storage: Storage, run: RunConfig, chunks: int = 100) -> None:
    session = RunSession(run, sweep="s", storage=storage, chunk_steps=10, build=build_fake)
    for _ in range(chunks):
        if session.advance().status != "running":
            break


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path), "s")


# Parquet ------------------------------------------------------------------------------------


def test_rows_become_the_steps_table() -> None:
    run = SWEEP.runs[0]
    paired = FakePaired(run)
    _, frame = paired.advance(paired.start(), 3)
    table = steps_table(run.run_id, frame)
    assert table.schema.equals(steps_schema(), check_metadata=True)
    rows = table.to_pylist()
    assert rows[0]["run_id"] == run.run_id
    assert rows[0]["test_loss"] is None
    assert rows[1]["num_gradients"] is None
    assert rows[1]["sigma_eigs"] == []
    assert rows[0]["sigma_eigs"] is None


def test_rows_with_other_columns_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the columns of `steps`, not so \['disp.*'extra'"):
        steps_table("x", pd.DataFrame({"extra": [1]}))


def test_infinite_losses_are_kept() -> None:
    run = SWEEP.runs[0]
    paired = FakePaired(run)
    _, frame = paired.advance(paired.start(), 3)
    frame["train_loss"] = np.inf
    assert steps_table("x", frame)["train_loss"].to_pylist() == [np.inf] * len(frame)


def test_one_line_of_pandas_opens_the_tables(storage: Storage) -> None:
    asked = SWEEP.runs[:2]
    for run in asked:
        run_fake(storage, run)
    runs = pd.read_parquet(f"{storage.location}/runs")
    steps = pd.read_parquet(f"{storage.location}/steps")
    assert set(runs["run_id"]) == set(steps["run_id"]) == {run.run_id for run in asked}
    one = pd.read_parquet(f"{storage.location}/steps", filters=[("run_id", "=", runs["run_id"][0])])
    assert one["run_id"].nunique() == 1


def test_files_say_what_they_are(storage: Storage) -> None:
    run_fake(storage, SWEEP.runs[0])
    found = set()
    for file in Path(storage.location).glob("*/**/*.parquet"):
        metadata = pq.read_schema(file).metadata
        found.add(metadata[b"cflows_ray.table"].decode())
        assert metadata[b"cflows_ray.table"].decode() == file.relative_to(storage.location).parts[0]
        assert metadata[b"cflows_ray.schema"] == b"1"
    assert found == {"runs", "steps"}


def test_another_schema_is_refused(storage: Storage) -> None:
    storage.write("sweep.json", json.dumps({"schema": "0"}).encode())
    with pytest.raises(OtherSchema, match=r"schema '1', got '0' in .*; choose another folder"):
        make_plan(SWEEP, storage)


def test_tidy_deletes_what_a_lost_process_wrote_late(storage: Storage) -> None:
    run = SWEEP.runs[0]
    run_fake(storage, run)
    path = f"steps/{run.run_id}/part-00000000.parquet"
    storage.write(f"steps/{run.run_id}/part-00000010.parquet", storage.read(path))
    storage.write(f"steps/{run.run_id}/_part.1234", b"half")
    Results(storage).tidy([run.run_id])
    assert storage.names(f"steps/{run.run_id}") == ["part-00000000.parquet"]


def test_an_unreadable_row_does_not_count_as_done(storage: Storage) -> None:
    run_fake(storage, SWEEP.runs[0])
    storage.write(f"runs/{SWEEP.runs[0].run_id}.parquet", b"PAR1")
    assert not make_plan(SWEEP, storage).ended


def test_a_flipped_bit_is_noticed_or_harmless(storage: Storage) -> None:
    """Bad pages, headers, footers: never other numbers, and never another kind of error."""
    results = Results(storage)
    run_fake(storage, SWEEP.runs[0])
    run_id = SWEEP.runs[0].run_id
    path = f"steps/{run_id}/part-00000000.parquet"
    whole = storage.read(path)
    table = pq.read_table(io.BytesIO(whole))
    noticed, rng = 0, np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        storage.write(path, bytes(damaged))
        try:
            found = results._read_parts(run_id, ["part-00000000.parquet"])
        except ResultsDamaged:
            noticed += 1
        else:
            assert found.equals(table)
    assert noticed > 100


def test_what_is_missing_is_said(storage: Storage) -> None:
    with pytest.raises(ResultsDamaged, match="steps/x lacks parts"):
        Results(storage).merge("x", ["part-00000000.parquet"], 1)


# Checkpoints --------------------------------------------------------------------------------


def test_checkpoints_are_exact() -> None:
    arrays = {
        "float64": np.array([1.1, np.nan, -0.0, np.inf, 5e-324]),
        "float32": np.float32([[1.5, -0.0]]),
        "scalar": np.array(3, np.int64),
        "flag": np.array(True),
        "bits": np.array([1, 2**32 - 1], np.uint32),
        "nothing/at all": np.zeros((0, 3), np.float32),
    }
    loaded = _from_zip(_to_zip(Checkpoint(7, arrays, {"rows": 3})))
    assert (loaded.step, loaded.facts) == (7, {"rows": 3})
    assert list(loaded.arrays) == list(arrays)
    for name, array in arrays.items():
        assert loaded.arrays[name].dtype == array.dtype
        assert loaded.arrays[name].shape == array.shape
        assert loaded.arrays[name].tobytes() == array.tobytes()


def test_every_truncation_of_a_checkpoint_is_noticed() -> None:
    data = _to_zip(Checkpoint(7, {"w": np.arange(3.0)}, {}))
    for length in np.linspace(0, len(data) - 1, 40).astype(int):
        with pytest.raises(CheckpointDamaged):
            _from_zip(data[:length])


def test_a_checkpoint_without_arrays(storage: Storage) -> None:
    checkpoints = Checkpoints(storage, "r")
    checkpoints.save(Checkpoint(0, {}, {"ended": ["failed", "why"]}))
    latest, notes = checkpoints.latest()
    assert latest is not None
    assert latest.facts == {"ended": ["failed", "why"]}
    assert notes == []


# Plan and status ----------------------------------------------------------------------------


def test_plan_and_status(storage: Storage) -> None:
    results = Results(storage)
    more = (*GRIDS, Grid(workload="saddle_2d", rule="rmsprop", lrs=(0.1, 0.2)))
    sweep = SweepConfig(name="s", grids=more, seeds=(0,), steps=25)
    results.write_sweep(sweep.to_json())
    for run in sweep.runs[:3]:
        run_fake(storage, run)
    run_fake(storage, sweep.runs[3], chunks=1)
    plan = make_plan(sweep, storage)
    assert [run.run_id for run in plan.resumed] == [sweep.runs[3].run_id]
    assert [run.run_id for run in plan.fresh] == [sweep.runs[4].run_id]
    assert plan.lines()[:2] == [
        "5 runs: 1 finished, 1 diverged, 1 failed before, 1 to resume, 1 new",
        "failed runs are tried again only with --retry-failed",
    ]
    status = sweep_status(storage)
    assert [status.statuses[run.run_id] for run in sweep.runs] == [
        *("finished", "diverged", "failed", "interrupted", "waiting")
    ]
    lock = SweepLock(storage)
    lock.acquire()
    status = sweep_status(storage)
    assert status.statuses[sweep.runs[3].run_id] == "running"
    assert status.steps == {sweep.runs[3].run_id: 10}
    console = Console(file=io.StringIO(), width=120)
    print_status(status, console)
    lock.release()
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert f"s: 3 of 5 runs done, process {os.getpid()} on" in text
    assert "failed: FloatingPointError: seventeen is not a learning rate" in text
    assert "diverged: loss not finite at step 7" in text
    assert "running, step 10 of 25" in text


def test_runs_of_another_version_do_not_stop_status_and_plan(storage: Storage) -> None:
    record = SWEEP.to_json()
    record["runs"]["0" * 16] = {**SWEEP.runs[0].to_json(), "inertia": 0.9}
    record["runs"]["1" * 16] = {**SWEEP.runs[0].to_json(), "workload": "gone"}
    Results(storage).write_sweep(record)
    status = sweep_status(storage)
    assert (len(status.runs), status.num_unknown) == (3, 2)
    console = Console(file=io.StringIO(), width=120)
    print_status(status, console)
    assert isinstance(console.file, io.StringIO)
    assert "2 more asked for, with a configuration that another version" in console.file.getvalue()
    assert len(make_plan(SWEEP, storage).fresh) == 3


def test_the_estimate_comes_from_runs_of_the_same_kind(storage: Storage) -> None:
    run_fake(storage, SWEEP.runs[0])
    sweep = SweepConfig(name="s", grids=GRIDS, seeds=(0, 1), steps=25)
    assert make_plan(sweep, storage).estimate_s() is not None
    other = (*GRIDS, Grid(workload="saddle_2d", rule="rmsprop", lrs=(0.1, 0.2)))
    sweep = SweepConfig(name="s", grids=other, seeds=(0,), steps=25)
    assert make_plan(sweep, storage).estimate_s() is None


def test_the_status_command(storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_module.main([storage.location]) == 2
    assert capsys.readouterr().err == (
        f"error: results must be a sweep's folder, got '{storage.location}'\n"
    )
    Results(storage).write_sweep(SWEEP.to_json())
    assert status_module.main([str(Path(storage.location).parent)]) == 2
    assert capsys.readouterr().err.endswith(", which holds the sweeps s\n")
    assert status_module.main([storage.location]) == 0
    assert "s: 0 of 3 runs done, no driver is at work" in capsys.readouterr().out


# Display ------------------------------------------------------------------------------------


def test_the_live_view_draws_and_the_plain_one_speaks() -> None:
    runs = SWEEP.runs
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
        display = Display("s", runs, {runs[0].run_id: "finished"}, console)
        display.start()
        display.started(runs[1].run_id)
        result = {"step": 10, "advanced": 10, "status": "running", "train_loss": 0.25}
        display.progressed(runs[1].run_id, {**result, "step": 5, "advanced": 5})
        time.sleep(0.01)
        display.progressed(runs[1].run_id, {**result, "effective_sharpness": 1.987654})
        display.note("a note")
        display.stop()
        assert isinstance(console.file, io.StringIO)
        text = console.file.getvalue()
        assert "1/3 runs done, 1 running" in text
        assert "steps/s" in text
        assert "left" in text
        assert "a note" in text
        if terminal:
            assert "1.988" in text
            assert "10/25" in text
        else:
            assert "\x1b" not in text


def test_tables_shorten_no_word_and_show_no_empty_column() -> None:
    names = {"workload": "transformer_sorting", "criterion": "cross_entropy"}
    row = {**names, "rule": "scalar_rmsprop", "wall_s": 100.0}
    for statuses in (("finished",), ("finished", "diverged", "failed")):
        console = Console(file=io.StringIO(), width=40)
        rows = [{**row, "status": status} for status in statuses]
        print_whole(console, summary_table(rows, len(rows)))
        assert isinstance(console.file, io.StringIO)
        head, line, *rest = console.file.getvalue().splitlines()
        assert head.split() == ["workload", "criterion", "rule", *statuses, "computing"]
        assert line.split()[:3] == [*names.values(), "scalar_rmsprop"]
        assert rest == []


def test_plain_lines_are_few(monkeypatch: Any) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    console = Console(file=io.StringIO())
    display = Display("s", SWEEP.runs, {}, console)
    for second in range(100):
        now[0] = float(second)
        result = {"step": second, "advanced": 1, "status": "running"}
        display.progressed(SWEEP.runs[0].run_id, result)
        display.tick()
    assert isinstance(console.file, io.StringIO)
    assert 5 <= console.file.getvalue().count("\n") <= 10
