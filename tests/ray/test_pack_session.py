"""Several runs carried out together by one process: reports, order, death in the middle."""

from __future__ import annotations

from pathlib import Path

import pytest

from cflows_ray.config import RunConfig
from cflows_ray.pack_session import PackSession
from cflows_ray.session import RunSession
from cflows_ray.storage import Storage
from tests.ray.fake_run import build_fake
from tests.ray.tables import assert_close_tables, assert_same_tables, read_tables

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

    monkeypatch.setattr("cflows_ray.pack.PairedPack.advance", broken)
    seen = carry_out(pack)
    assert [status for _, _, status in seen] == ["running", "running", "failed", "failed"]
    runs = read_tables(tmp_path)["runs"]
    assert runs["status_detail"].to_pylist() == ["ZeroDivisionError: no reason"] * 2
