"""Several runs carried out together by one process: reports, order, death in the middle."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from cflows_ray.store.storage import Storage
from cflows_ray.sweep.pack_session import PackSession
from cflows_ray.sweep.run_config import RunConfig
from cflows_ray.sweep.session import RunSession
from tests.sweep.fake_run import FakePaired, FakeState, JaxRuntimeError, build_fake
from tests.sweep.tables import assert_close_tables, assert_same_tables, read_tables

SETTINGS = {"workload": "saddle_2d", "rule": "gradient_descent", "steps": 40, "warmup": 3}
RUNS = [RunConfig(lr=lr, dtype="float64", **SETTINGS) for lr in (0.2, 0.19, 0.18)]


def sessions(folder: Path, runs: list[RunConfig], **settings: object) -> list[RunSession]:
    storage = Storage(str(folder))
    return [RunSession(run, sweep="s", storage=storage, chunk_steps=10, **settings) for run in runs]


def carry_out(pack: PackSession, chunks: int = 100) -> list[tuple[str, int, str]]:
    """Advance; return what was reported: run id, step, status."""
    seen = []
    while not pack.done and chunks > 0:
        seen += [(r.run_id, r.progress.step, r.progress.status) for r in pack.advance()]
        chunks -= 1
    return seen


@pytest.mark.slow
def test_a_pack_that_dies_is_taken_up_run_by_run(tmp_path: Path) -> None:
    for session in sessions(tmp_path / "single", RUNS):
        carry_out(PackSession([session], size=None, chunk_steps=10))
    packed = PackSession(sessions(tmp_path / "packed", RUNS), size=2, chunk_steps=10)
    seen = carry_out(packed, chunks=3)  # the first prepares
    ids = [run.run_id for run in RUNS]
    assert seen[:3] == [(run_id, 0, "running") for run_id in ids]
    assert seen[3:] == [(i, step, "running") for step in (10, 20) for i in ids[:2]]
    # dead; other packs and single runs go on
    again = PackSession(sessions(tmp_path / "packed", RUNS[1:]), size=2, chunk_steps=10)
    seen = carry_out(again)
    assert seen[0] == (ids[1], 20, "running")
    assert {(ids[1], 40, "finished"), (ids[2], 40, "finished")} <= set(seen)
    carry_out(PackSession(sessions(tmp_path / "packed", RUNS[:1]), size=None, chunk_steps=10))
    assert set(read_tables(tmp_path / "packed")["runs"]["status"].to_pylist()) == {"finished"}
    assert_close_tables(tmp_path / "single", tmp_path / "packed", rtol=1e-6)


def test_without_packing_runs_follow_one_another(tmp_path: Path) -> None:
    runs = [RunConfig(lr=lr, **SETTINGS) for lr in (0.2, 17.0, 0.1)]
    for session in sessions(tmp_path / "single", runs, build=build_fake):
        carry_out(PackSession([session], size=1, chunk_steps=10))
    together = sessions(tmp_path / "together", runs, build=build_fake)
    seen = carry_out(PackSession(together, size=1, chunk_steps=10))
    order = [run_id for run_id, _, _ in seen]
    assert order == sorted(order, key=[run.run_id for run in runs].index)
    assert [status for _, _, status in seen if status != "running"] == [
        "finished",
        "failed",
        "finished",
    ]
    assert_same_tables(tmp_path / "single", tmp_path / "together")


def test_a_mistake_in_the_computation_is_a_result_of_every_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = PackSession(sessions(tmp_path, RUNS[:2]), size=2, chunk_steps=10)

    def broken(*_: object) -> None:
        raise ZeroDivisionError("no reason")

    monkeypatch.setattr("cflows_ray.paired.pack.PairedPack.compute", broken)
    seen = carry_out(pack)
    assert [status for _, _, status in seen] == ["running", "running", "failed", "failed"]
    runs = read_tables(tmp_path)["runs"]
    assert runs["status_detail"].to_pylist() == ["ZeroDivisionError: no reason"] * 2


class FakePack:
    """Stands in for `PairedPack`: fake runs advanced one after the other."""

    def __init__(self, runs: list[FakePaired]) -> None:
        self.runs = runs

    def compute(self, states: list[FakeState], num_steps: int) -> tuple[list, list]:
        moved = [run.advance(s, num_steps) for run, s in zip(self.runs, states, strict=True)]
        return [state for state, _ in moved], [frame for _, frame in moved]

    def check(self, rows: pd.DataFrame) -> None:
        """Find nothing wrong."""


@pytest.mark.parametrize("first", [0, 1])
def test_a_member_whose_rows_are_damaged_starts_over_and_disturbs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """It ends before the others and finds the damage there."""
    monkeypatch.setattr("cflows_ray.paired.PairedPack", FakePack)
    runs = [dataclasses.replace(run, steps=40 if i == first else 70) for i, run in enumerate(RUNS)]
    for session in sessions(tmp_path / "single", runs, build=build_fake):
        carry_out(PackSession([session], size=1, chunk_steps=10))
    packed = PackSession(
        sessions(tmp_path / "packed", runs, build=build_fake), size=3, chunk_steps=10
    )
    carry_out(packed, chunks=3)
    part = tmp_path / "packed" / "steps" / runs[first].run_id / "part-00000000.parquet"
    part.write_bytes(part.read_bytes()[:-9])
    seen = carry_out(packed)
    assert (runs[first].run_id, 0, "running") in seen
    assert {status for _, _, status in seen} == {"running", "finished"}
    assert_same_tables(tmp_path / "single", tmp_path / "packed")


def test_a_pack_too_large_for_the_device_is_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where k has grown, say; what still does not fit alone is retried once, then a result."""
    sizes = []

    class SmallDevice(FakePack):
        def compute(self, states: list[FakeState], num_steps: int) -> tuple[list, list]:
            sizes.append(len(self.runs))
            if len(self.runs) > 1 and states[0].step >= 10:
                raise JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
            return super().compute(states, num_steps)

    monkeypatch.setattr("cflows_ray.paired.PairedPack", SmallDevice)
    runs = [dataclasses.replace(RUNS[0], lr=lr) for lr in (0.1, 0.2, 0.3, 0.4)]
    for session in sessions(tmp_path / "single", runs, build=build_fake):
        carry_out(PackSession([session], size=1, chunk_steps=10))
    packed = PackSession(
        sessions(tmp_path / "packed", runs, build=build_fake), size=4, chunk_steps=10
    )
    seen = carry_out(packed)
    assert sizes == [4, 4, 2]  # from then on one by one, without a batched program
    assert {status for _, _, status in seen} == {"running", "finished"}
    assert_same_tables(tmp_path / "single", tmp_path / "packed")


def test_rows_that_cannot_be_right_are_the_end_of_their_run_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seed whose loss has two values at the start does not mark its neighbours as failed."""

    class Checking(FakePack):
        def check(self, rows: pd.DataFrame) -> None:
            start = rows.loc[rows["step"] == 0, "train_loss"]
            if len(start) and start.iloc[0] == self.runs[1].start().point[0]:
                raise ValueError("loss_fn must have one value\nat one point")

    monkeypatch.setattr("cflows_ray.paired.PairedPack", Checking)
    for session in sessions(tmp_path / "single", RUNS, build=build_fake):
        carry_out(PackSession([session], size=1, chunk_steps=10))
    packed = sessions(tmp_path / "packed", RUNS, build=build_fake)
    seen = carry_out(PackSession(packed, size=3, chunk_steps=10))
    ends = {run_id: status for run_id, _, status in seen}
    assert [ends[run.run_id] for run in RUNS] == ["finished", "failed", "finished"]
    rows = {row["run_id"]: row for row in read_tables(tmp_path / "packed")["runs"].to_pylist()}
    assert rows[RUNS[1].run_id]["status_detail"] == "ValueError: loss_fn must have one value"
    expected, found = (
        read_tables(tmp_path / name)["steps"].to_pylist() for name in ("single", "packed")
    )
    assert found == [row for row in expected if row["run_id"] != RUNS[1].run_id]


@pytest.mark.parametrize("error", [ZeroDivisionError, JaxRuntimeError, MemoryError])
def test_what_goes_wrong_while_packs_are_tried_out_fails_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def broken(*_: object) -> int:
        raise error("no reason\nat all")

    monkeypatch.setattr("cflows_ray.paired.choose_pack_size", broken)
    pack = PackSession(sessions(tmp_path, RUNS, build=build_fake), size=None, chunk_steps=10)
    notes, ends = [], {}
    while not pack.done:
        for report in pack.advance():
            notes += report.notes
            ends[report.run_id] = report.progress.status
    assert set(ends.values()) == {"finished"}
    reason = f"{error.__name__}: no reason"
    assert notes == [f"no size of packs could be tried ({reason}): runs go one by one"]


def test_a_run_too_large_for_the_device_is_a_result_the_second_time(tmp_path: Path) -> None:
    run = RunConfig(lr=23.0, **SETTINGS)
    with pytest.raises(JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        carry_out(PackSession(sessions(tmp_path, [run], build=build_fake), size=1, chunk_steps=5))
    seen = carry_out(
        PackSession(sessions(tmp_path, [run], build=build_fake), size=1, chunk_steps=5)
    )
    assert seen == [(run.run_id, 0, "failed")]
    detail = read_tables(tmp_path)["runs"]["status_detail"].to_pylist()
    assert detail == ["JaxRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes"]


def test_a_run_that_ended_before_says_how(tmp_path: Path) -> None:
    """A trial that died between its row and its end is started again by Ray."""
    runs = [RunConfig(lr=lr, **SETTINGS) for lr in (0.2, 17.0, 13.0)]
    for _ in range(2):
        pack = PackSession(sessions(tmp_path, runs, build=build_fake), size=1, chunk_steps=50)
        seen = carry_out(pack)
    assert [status for _, _, status in seen] == ["finished", "failed", "diverged"]
