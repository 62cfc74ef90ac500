"""Real processes and machines lost in real sweeps; the tables stay bit for bit the same."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cflows_ray.store import storage as storage_module
from cflows_ray.store.storage import Storage
from cflows_ray.sweep.config import Grid, SweepConfig
from cflows_ray.sweep.execution_settings import Execution
from cflows_ray.sweep.session import RunSession
from tests.ray.conftest import Launched, launch_sweep
from tests.ray.moments import Moment
from tests.sweep.fake_run import build_fake
from tests.sweep.tables import assert_same_tables

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


# What a run is doing when it is killed, and the changes on storage that are part of it.
WRITES = {
    "rows": r"(before write|half written|before rename|written) steps/\w+/part-\d+.parquet",
    "checkpoint": r"(before write|half written|before rename|written) _checkpoints/\w+/step-\S+",
    "merge": r".* steps/\w+/_merged|(before delete|deleted|moved) steps/\w+/part-.*",
    "row": r".* runs/\w+.parquet",
}


def moments_of(events: list[tuple[str, str]], seed: int) -> list[tuple[str, Moment]]:
    """Return 20 different moments at which to kill a run, and what it is doing then."""
    rng = np.random.default_rng(seed)
    result = []
    for doing, count in (("rows", 4), ("checkpoint", 3), ("merge", 4), ("row", 1)):
        known = [
            i for i, event in enumerate(events) if re.fullmatch(WRITES[doing], " ".join(event))
        ]
        chosen = rng.choice(known, count, replace=False)
        result += [(doing, Moment("change", int(i))) for i in chosen]
    for doing, count, seconds in (("computing", 4, 0.02), ("orbax", 4, 0.03)):
        # Of 5 chunks and saves; the delay is about what one takes.
        numbers = rng.permutation(count)
        result += [(doing, Moment(doing, int(n), seconds * rng.random())) for n in numbers]
    return result


def test_actors_killed_at_many_moments(
    launch: Callable[..., Launched], small_sweep: Callable[..., SweepConfig], tmp_path: Path
) -> None:
    """20 runs of the two-parameter workload, each killed (SIGKILL) at a moment of its own.

    Between two checkpoints (in the middle of a chunk), while rows are written, while Orbax saves,
    while the checkpoint goes to storage, during the final merge and while the run's row is written.
    """
    from tests.ray.faults import killed_trial

    sweep = small_sweep(lrs=(0.2, 0.19), seeds=tuple(range(10)))
    expected = launch(small_sweep(lrs=(0.2, 0.19), seeds=tuple(range(10)), name="expected"))
    events = changes_of_a_run(tmp_path / "counted", sweep)
    moments = moments_of(events, seed=5)
    assert len(set(moments)) == len(sweep.runs) == 20
    marks = tmp_path / "marks"
    marks.mkdir()
    doing = {run.run_id: what for run, (what, _) in zip(sweep.runs, moments, strict=True)}
    kill_at = {run.run_id: moment for run, (_, moment) in zip(sweep.runs, moments, strict=True)}
    result = launch(sweep, killed_trial(kill_at, marks))
    places = {mark.name: mark.read_text() for mark in marks.iterdir()}
    assert set(places) == set(kill_at)
    for run_id, place in places.items():
        what = doing[run_id]
        assert re.fullmatch(WRITES.get(what, rf"{what} .*"), place), (what, place)
    assert result.text.count("process lost") == 20
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


@pytest.fixture(scope="module")
def nodes(
    tmp_path_factory: pytest.TempPathFactory, compile_cache: str
) -> tuple[Path, dict[str, Any]]:
    """Run the scenarios of nodes.py in a process of its own; return its folder and findings."""
    folder = tmp_path_factory.mktemp("nodes")
    done = subprocess.run(
        [sys.executable, "-m", "tests.ray.nodes", str(folder), compile_cache],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder, dict(json.loads(done.stdout.strip().splitlines()[-1]))


@pytest.fixture(scope="module")
def longer_sweep(
    cluster: None,  # noqa: ARG001
    tmp_path_factory: pytest.TempPathFactory,
    compile_cache: str,
) -> Path:
    """Return the tables of an undisturbed sweep like the one that loses nodes."""
    execution = Execution(
        storage=str(tmp_path_factory.mktemp("longer")), chunk_steps=50, compile_cache=compile_cache
    )
    grid = Grid(workload="saddle_2d", rule="gradient_descent", lrs=(0.2, 0.19))
    sweep = SweepConfig(
        name="small", grids=(grid,), seeds=(0, 1), steps=300, warmup=3, execution=execution
    )
    return launch_sweep(sweep).folder


@pytest.mark.parametrize("scenario", ["abrupt", "drained"])
def test_loss_of_a_node(
    nodes: tuple[Path, dict[str, Any]], longer_sweep: Path, scenario: str
) -> None:
    """Of two nodes one is lost in the middle of a run; another joins late and takes runs."""
    folder, found = nodes[0] / scenario, nodes[1][scenario]
    assert found["open_runs"] >= 1
    assert found["lost"] == {}
    before, after = found["begun"][: found["begun_before"]], found["begun"][found["begun_before"] :]
    assert found["lost_node"] in before
    assert found["lost_node"] not in after[1:]  # one may have been on its way
    assert found["late_node"] in after
    assert "resumes at step" in found["text"]
    assert_same_tables(longer_sweep, folder / "small")


def most_at_once(spans: list[Any]) -> int:
    """Return how many runs went on at the same time, at most; a span ends with begin and end."""
    return max(sum(b <= t < e for *_, b, e in spans) for t in (span[-2] for span in spans))


def test_no_two_runs_share_a_gpu(nodes: tuple[Path, dict[str, Any]]) -> None:
    """Three pretended GPUs on two nodes: three runs at once, never two on the same GPU."""
    found = nodes[1]["gpus"]
    spans = found["spans"]  # [node, GPU, begin, end] of every run
    assert len(spans) == 9
    assert {gpu.count(",") for _, gpu, _, _ in spans} == {0}
    assert all(gpu for _, gpu, _, _ in spans)
    holders = {(node, gpu) for node, gpu, _, _ in spans}
    assert len(holders) == 3
    for holder in holders:
        assert most_at_once([s for s in spans if tuple(s[:2]) == holder]) == 1
    assert most_at_once(spans) == 3
    assert "3 at a time, each with 1 CPU core, 1 GPU" in found["text"]


def test_fractions_of_a_gpu(nodes: tuple[Path, dict[str, Any]]) -> None:
    """Two halves of one pretended GPU: two runs at once on it, each with its share of memory."""
    found = nodes[1]["halves"]
    assert {gpu for _, gpu, _, _ in found["spans"]} == {"0"}
    assert most_at_once(found["spans"]) == 2
    assert found["memory_fractions"] == ["0.450"]
    assert "2 at a time, each with 1 CPU core, 0.5 GPU" in found["text"]


def test_the_driver_never_loads_jax(nodes: tuple[Path, dict[str, Any]]) -> None:
    """What it has not imported, it can't take a GPU's memory with."""
    assert {name: found["loaded_jax"] for name, found in nodes[1].items()} == dict.fromkeys(
        ("abrupt", "drained", "gpus", "halves"), False
    )
