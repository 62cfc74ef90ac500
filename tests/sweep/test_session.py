"""A run on storage survives death at every single change that it makes there."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cflows_ray.store import storage as storage_module
from cflows_ray.store.checkpoint import Checkpoints
from cflows_ray.store.storage import Storage, StorageError
from cflows_ray.store.tables import Results
from cflows_ray.sweep.run_config import RunConfig
from cflows_ray.sweep.session import RunSession, Superseded
from tests.sweep.fake_run import FakePaired, build_fake
from tests.sweep.tables import assert_same_tables, read_tables

RUN = RunConfig(workload="saddle_2d", rule="gradient_descent", lr=0.2, steps=25)


class Killed(BaseException):
    """Death of the process: nothing catches it."""


def open_session(folder: Path, run: RunConfig = RUN, **settings: Any) -> RunSession:
    settings = {"chunk_steps": 10, "checkpoint_every": 1, "build": build_fake, **settings}
    return RunSession(run, sweep="s", storage=Storage(str(folder)), **settings)


def finish(folder: Path, run: RunConfig = RUN, **settings: Any) -> RunSession:
    """Carry a run to its end."""
    session = open_session(folder, run, **settings)
    while session.advance().status == "running":
        pass
    return session


@pytest.fixture
def on_event(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Any], None]:
    """Set what is called around every change on storage."""
    return lambda hook: monkeypatch.setattr(storage_module, "on_event", hook)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(folder)
    return folder


def count_events(tmp_path: Path) -> int:
    events: list[tuple[str, str]] = []
    storage_module.on_event = lambda *event: events.append(event)
    try:
        finish(tmp_path / "counted")
    finally:
        storage_module.on_event = None
    return len(events)


def test_an_undisturbed_run_has_every_row_once(undisturbed: Path) -> None:
    tables = read_tables(undisturbed)
    steps = tables["steps"].to_pandas()
    assert sorted(steps["step"].unique()) == list(range(26))
    assert not steps.duplicated(["step", "process"]).any()
    assert list((undisturbed / "steps" / RUN.run_id).iterdir()) == [
        undisturbed / "steps" / RUN.run_id / "part-00000000.parquet"
    ]
    row = tables["runs"].to_pylist()[0]
    assert row["status"] == "finished"
    assert row["run_id"] == RUN.run_id
    assert row["num_params"] == 2
    assert row["beta2"] is None
    assert row["flows"] == "midpoint,stable,central"
    assert not list(undisturbed.glob("_checkpoints/*"))


def test_death_at_every_change_on_storage(undisturbed: Path, tmp_path: Path, on_event: Any) -> None:
    """Killed at change k (before, half-way, after), the next process ends the run exactly."""
    total = count_events(tmp_path)
    assert total >= 40  # parts, checkpoints, their deletion, the merge, the row
    for k in range(total):
        folder = tmp_path / f"{k}"
        seen = iter(range(total + 1))

        def die(event: str, path: str, seen: Any = seen, k: int = k) -> None:
            if next(seen) == k:
                raise Killed(event, path)

        on_event(die)
        with pytest.raises(Killed):
            finish(folder)
        on_event(None)
        finish(folder)
        assert_same_tables(undisturbed, folder)
        assert not list(folder.glob("_checkpoints/*"))


def test_readers_never_see_a_row_twice_or_half_a_file(tmp_path: Path, on_event: Any) -> None:
    """Whatever the moment, the files that readers look at are whole and disjoint."""

    def look(event: str, path: str) -> None:  # noqa: ARG001
        steps = read_tables(tmp_path)["steps"].to_pandas()
        assert not steps.duplicated(["step", "process"]).any()

    on_event(look)
    finish(tmp_path)


@pytest.mark.parametrize("chunk_steps", [1, 7, 100])
@pytest.mark.parametrize("checkpoint_every", [1, 3])
def test_chunks_do_not_change_the_tables(
    undisturbed: Path, tmp_path: Path, chunk_steps: int, checkpoint_every: int
) -> None:
    finish(tmp_path, chunk_steps=chunk_steps, checkpoint_every=checkpoint_every)
    assert_same_tables(undisturbed, tmp_path)


def test_sparse_records_with_chunks_without_rows(tmp_path: Path) -> None:
    run = dataclasses.replace(RUN, record_every=12)
    finish(tmp_path, run, chunk_steps=5)
    steps = read_tables(tmp_path)["steps"].to_pandas()
    assert sorted(steps["step"].unique()) == [0, 12, 24, 25]


def test_a_stopped_run_is_saved_and_goes_on_from_there(undisturbed: Path, tmp_path: Path) -> None:
    session = open_session(tmp_path, checkpoint_every=100)
    session.advance()
    session.save()
    again = open_session(tmp_path)
    assert again.notes == ["resumes at step 10"]
    assert again.advance().step == 20
    finish(tmp_path)
    assert_same_tables(undisturbed, tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "flipped"])
@pytest.mark.parametrize("how_many", [1, 2])
def test_damaged_checkpoints(undisturbed: Path, tmp_path: Path, damage: str, how_many: int) -> None:
    """Falls back to the checkpoint before; starts over where there is none; says so."""
    session = open_session(tmp_path)
    session.advance()
    session.advance()
    files = sorted((tmp_path / "_checkpoints" / RUN.run_id).glob("step-*.zip"))
    assert len(files) == 2
    for file in files[2 - how_many :]:
        data = bytearray(file.read_bytes())
        if damage == "truncated":
            file.write_bytes(data[: len(data) // 2])
        elif damage == "empty":
            file.write_bytes(b"")
        elif damage == "flipped":
            data[len(data) // 2] ^= 1
            file.write_bytes(data)
        else:
            file.unlink()
    again = open_session(tmp_path)
    notes = "; ".join(again.notes)
    if how_many == 1:
        assert "resumes at step 10" in notes
    else:
        assert "resumes" not in notes
    if damage != "missing":
        assert notes.count("unusable") == how_many
        assert how_many == 1 or "starts over" in notes
    finish(tmp_path)
    assert_same_tables(undisturbed, tmp_path)


def test_lost_rows_are_computed_again(undisturbed: Path, tmp_path: Path) -> None:
    session = open_session(tmp_path)
    session.advance()
    session.advance()
    (tmp_path / "steps" / RUN.run_id / "part-00000000.parquet").unlink()
    again = open_session(tmp_path)
    assert any("gone" in note for note in again.notes)
    finish(tmp_path)
    assert_same_tables(undisturbed, tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "shorter", "doubled"])
def test_a_damaged_part_is_found_at_the_merge(
    undisturbed: Path, tmp_path: Path, damage: str
) -> None:
    session = open_session(tmp_path)
    session.advance()
    part = tmp_path / "steps" / RUN.run_id / "part-00000000.parquet"
    table = pq.read_table(pa.BufferReader(part.read_bytes()))
    if damage == "truncated":
        part.write_bytes(part.read_bytes()[:100])
    elif damage == "shorter":
        pq.write_table(table.slice(0, 5), part)
    else:  # as many rows as there should be, one of them twice
        pq.write_table(pa.concat_tables([table.slice(0, 1), table.slice(0, len(table) - 1)]), part)
    progress = session.advance()
    while progress.status == "running":
        progress = session.advance()
    assert any("starts over" in note for note in session.notes)
    assert_same_tables(undisturbed, tmp_path)


def test_readers_see_no_row_twice_after_other_chunks(
    undisturbed: Path, tmp_path: Path, on_event: Any
) -> None:
    """Killed between rows and checkpoint, the one before damaged, then chunks of another size."""

    def die(event: str, path: str) -> None:
        if event == "before write" and path.endswith("step-00000020.zip"):
            raise Killed

    def look(event: str, path: str) -> None:
        steps = read_tables(tmp_path)["steps"].to_pandas()
        assert not steps.duplicated(["step", "process"]).any(), (event, path)

    on_event(die)
    with pytest.raises(Killed):
        finish(tmp_path, chunk_steps=5)
    (tmp_path / "_checkpoints" / RUN.run_id / "step-00000015.zip").write_bytes(b"")
    on_event(look)
    finish(tmp_path, chunk_steps=7)
    assert_same_tables(undisturbed, tmp_path)


def test_a_checkpoint_of_another_code_starts_over(undisturbed: Path, tmp_path: Path) -> None:
    class Other(FakePaired):
        def from_arrays(self, arrays: Any) -> Any:  # noqa: ARG002
            raise ValueError("point must have shape (3,), got (2,)")

    open_session(tmp_path).advance()
    session = open_session(tmp_path, build=lambda run: (Other(run), Other(run).start()))
    session.advance()
    assert any("does not fit" in note for note in session.notes)
    while session.advance().status == "running":
        pass
    assert_same_tables(undisturbed, tmp_path)


def test_divergence_and_failure_are_results(tmp_path: Path) -> None:
    for lr, status, detail in (
        (13.0, "diverged", "loss not finite at step 7"),
        (17.0, "failed", "FloatingPointError: seventeen is not a learning rate"),
    ):
        run = dataclasses.replace(RUN, lr=lr)
        finish(tmp_path / str(lr), run, chunk_steps=4)
        tables = read_tables(tmp_path / str(lr))
        row = tables["runs"].to_pylist()[0]
        assert (row["status"], row["status_detail"]) == (status, detail)
        steps = tables["steps"].to_pandas()
        assert steps["step"].max() == (7 if status == "diverged" else 3)


def test_machine_errors_are_left_to_the_scheduler(tmp_path: Path) -> None:
    session = open_session(tmp_path, dataclasses.replace(RUN, lr=19.0))
    with pytest.raises(MemoryError):
        session.advance()
    assert not Results(Storage(str(tmp_path))).finished()


def test_a_superseded_process_writes_nothing(undisturbed: Path, tmp_path: Path) -> None:
    """A process that was thought dead comes back while its successor works, and after that."""
    zombie = open_session(tmp_path)
    zombie.advance()
    successor = open_session(tmp_path)
    with pytest.raises(Superseded):
        zombie.advance()
    while successor.advance().status == "running":
        pass
    with pytest.raises(Superseded):
        zombie.save()
    assert_same_tables(undisturbed, tmp_path)


def test_full_disk_damages_nothing(undisturbed: Path, tmp_path: Path, on_event: Any) -> None:
    """Space runs out at every write in turn; once there is space again the run goes on."""
    total = count_events(tmp_path)
    errors: list[StorageError | None] = []
    for k in range(0, total, 3):
        folder = tmp_path / f"{k}"
        seen = iter(range(total + 1))

        def full(event: str, _: str, seen: Any = seen, k: int = k) -> None:
            if next(seen) >= k and event in ("before write", "half written"):
                raise OSError(28, "No space left on device")

        on_event(full)
        error = None
        try:
            finish(folder)
        except StorageError as caught:
            error = caught
        if error is not None:  # None: all had been written when the space ran out
            assert error.lasting
            assert re.fullmatch(r"cannot write \S+: No space left on device", str(error))
        errors.append(error)
        for file in folder.glob("**/[!_.]*.parquet"):
            pq.read_table(file)
        on_event(None)
        finish(folder)
        assert_same_tables(undisturbed, folder)
    assert sum(error is not None for error in errors) >= 12


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a real file system with room for 200 kB, where the system lets us make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    try:
        made = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full(undisturbed: Path, small_disk: Path) -> None:
    (small_disk / "others").write_bytes(b"0" * 150_000)
    with pytest.raises(StorageError, match=r"cannot write \S+: No space left on device"):
        finish(small_disk)
    (small_disk / "others").unlink()
    finish(small_disk)
    assert_same_tables(undisturbed, small_disk)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_forbidden_folders_are_lasting_errors(tmp_path: Path, on_event: Any, number: int) -> None:
    def forbid(event: str, _: str) -> None:
        if event == "before write":
            raise OSError(number, os.strerror(number))

    on_event(forbid)
    with pytest.raises(StorageError, match=rf"cannot write \S+: {os.strerror(number)}") as info:
        finish(tmp_path)
    assert info.value.lasting


def test_only_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    session = open_session(tmp_path, chunk_steps=5)
    for _ in range(4):
        session.advance()
    names = Checkpoints(Storage(str(tmp_path)), RUN.run_id).names()
    assert names == ["step-00000015.zip", "step-00000020.zip"]
