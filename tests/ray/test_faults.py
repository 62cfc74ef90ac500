"""Real processes and machines lost in real sweeps; the tables stay bit for bit the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cflows_ray import storage as storage_module
from cflows_ray.config import SweepConfig
from cflows_ray.session import RunSession
from cflows_ray.storage import Storage
from tests.ray.conftest import Launched
from tests.ray.fake_run import build_fake
from tests.ray.tables import assert_same_tables

pytestmark = [pytest.mark.ray, pytest.mark.faults]
ROOT = Path(__file__).parents[2]


def changes_of_a_run(folder: Path, sweep: SweepConfig) -> list[tuple[str, str]]:
    """Return all changes on storage that one run of a sweep makes."""
    events: list[tuple[str, str]] = []
    storage_module.on_event = lambda *event: events.append(event)
    try:
        session = RunSession(
            sweep.runs[0],
            sweep="s",
            storage=Storage(str(folder)),
            chunk_steps=sweep.execution.chunk_steps,
            build=build_fake,
        )
        while session.advance().status == "running":
            pass
    finally:
        storage_module.on_event = None
    return events


def test_actors_killed_at_many_moments(
    launch: Callable[..., Launched], small_sweep: Callable[..., SweepConfig], tmp_path: Path
) -> None:
    """24 runs of the two-parameter workload, each killed (SIGKILL) at a moment of its own.

    The moments cover writing a part, saving a checkpoint, deleting old ones, the final merge and
    the run's own row.
    """
    from tests.ray.faults import killed_trial

    sweep = small_sweep(lrs=(0.2, 0.19, 0.18), seeds=tuple(range(8)))
    expected = launch(small_sweep(lrs=(0.2, 0.19, 0.18), seeds=tuple(range(8)), name="expected"))
    events = changes_of_a_run(tmp_path / "counted", sweep)
    moments = np.random.default_rng(5).permutation(len(events))[: len(sweep.runs)]
    kinds = {(events[m][0], events[m][1].rsplit("/", 1)[-1][:5]) for m in moments}
    assert {"half written", "before rename", "written"} <= {event for event, _ in kinds}
    marks = tmp_path / "marks"
    marks.mkdir()
    kill_at = {run.run_id: int(m) for run, m in zip(sweep.runs, moments, strict=True)}
    result = launch(sweep, killed_trial(kill_at, marks))
    assert {mark.name for mark in marks.iterdir()} == set(kill_at)
    assert not result.outcome.lost
    assert_same_tables(renamed(expected.folder), result.folder)


def renamed(folder: Path) -> Path:
    """Give a reference sweep's rows the name of the disturbed sweep."""
    import pyarrow.parquet as pq

    for file in (folder / "runs").glob("*.parquet"):
        table = pq.read_table(file)
        rows = [{**row, "sweep": "small"} for row in table.to_pylist()]
        pq.write_table(type(table).from_pylist(rows, schema=table.schema), file)
    return folder


def on_nodes(scenario: str, folder: Path, cache: str) -> dict[str, Any]:
    """Run a scenario of nodes.py in a process of its own; return what it found."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.ray.nodes", scenario, str(folder), cache],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


@pytest.mark.parametrize("scenario", ["abrupt", "drained"])
def test_loss_of_a_node(
    launch: Callable[..., Launched],
    small_sweep: Callable[..., SweepConfig],
    scenario: str,
    tmp_path: Path,
    compile_cache: str,
) -> None:
    """Of two nodes one is lost in the middle; another joins late and takes its runs."""
    expected = launch(small_sweep(steps=300))
    found = on_nodes(scenario, tmp_path / "nodes", compile_cache)
    assert found["removed_at_checkpoints"] >= 1
    assert found["lost"] == {}
    assert len(found["nodes_used"]) >= 2
    assert_same_tables(expected.folder, tmp_path / "nodes" / "small")


def test_no_two_runs_share_a_gpu(tmp_path: Path, compile_cache: str) -> None:
    """Three pretended GPUs on two nodes: three runs at once, never two on the same GPU."""
    found = on_nodes("gpus", tmp_path / "nodes", compile_cache)
    spans = found["spans"]  # [node, GPU, begin, end] of every run
    assert len(spans) == 9
    assert {gpu.count(",") for _, gpu, _, _ in spans} == {0}
    assert all(gpu for _, gpu, _, _ in spans)
    for i, (node, gpu, begin, end) in enumerate(spans):
        for other_node, other_gpu, other_begin, other_end in spans[:i]:
            if (node, gpu) == (other_node, other_gpu):
                assert end <= other_begin or other_end <= begin
    starts = sorted(begin for _, _, begin, _ in spans)
    most = max(sum(b <= t < e for _, _, b, e in spans) for t in starts)
    assert most == 3
    assert found["driver_loaded_jax"] is False


def test_fractions_of_a_gpu(tmp_path: Path, compile_cache: str) -> None:
    """Two halves of one pretended GPU: two runs at once on it, each with its share of memory."""
    found = on_nodes("halves", tmp_path / "nodes", compile_cache)
    assert {gpu for _, gpu, _, _ in found["spans"]} == {"0"}
    starts = [begin for _, _, begin, _ in found["spans"]]
    assert max(sum(b <= t < e for _, _, b, e in found["spans"]) for t in starts) == 2
    assert found["memory_fractions"] == ["0.450"]
