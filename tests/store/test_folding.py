"""Ended runs in larger files: exact whatever happens, open to every reader of Parquet."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cflows_ray.schema import arrow_schema
from cflows_ray.store import Results, Storage, StorageError, fold, folding
from cflows_ray.store import storage as storage_module
from cflows_ray.store.parquet import conform, from_bytes, rows_of, to_bytes
from cflows_ray.sweep.config import Grid, SweepConfig
from cflows_ray.sweep.plan import clear_the_way, make_plan
from cflows_ray.sweep.run_config import RunConfig
from cflows_ray.sweep.session import RunSession
from tests.sweep.fake_run import build_fake
from tests.sweep.tables import assert_same_tables, read_tables

# Two that diverge and one of which nothing is left but the row: it failed before its first step.
GRIDS = (
    Grid(workload="saddle_2d", rule="gradient_descent", lrs=(0.1, 0.2, 13.0), seeds=(0, 1)),
    Grid(workload="saddle_2d", rule="gradient_descent", lrs=(0.3,), seeds=(0,), steps=9),
)
SWEEP = SweepConfig(name="s", grids=GRIDS, seeds=(0,), steps=12)


class Killed(BaseException):
    """Death of the process: nothing catches it."""


def run_fake(storage: Storage, run: RunConfig, chunks: int = 100) -> None:
    def build(config: RunConfig) -> Any:
        if config.steps == 9:
            raise FloatingPointError("nothing to begin with")
        return build_fake(config)

    session = RunSession(run, sweep="s", storage=storage, chunk_steps=10, build=build)
    for _ in range(chunks):
        if session.advance().status != "running":
            return


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of seven ended runs, one file each."""
    folder = tmp_path_factory.mktemp("undisturbed")
    storage = Storage(str(folder))
    Results(storage).write_sweep(SWEEP.to_json())
    for run in SWEEP.runs:
        run_fake(storage, run)
    assert len(read_tables(folder)["runs"]) == 7
    return folder


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make three runs a full part, and no run too few to fold."""
    monkeypatch.setattr(folding, "RUNS_A_PART", 3)
    monkeypatch.setattr(folding, "FEW", 0)


@pytest.fixture
def on_event(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], None]]:
    """Set what is called around every change on storage."""
    yield lambda hook: monkeypatch.setattr(storage_module, "on_event", hook)
    storage_module.on_event = None


def copy(source: Path, target: Path) -> Storage:
    shutil.copytree(source, target)
    return Storage(str(target))


def files(folder: Path) -> list[str]:
    """Return the paths of all files of the two tables."""
    found = [p for t in ("runs", "steps") for p in (folder / t).rglob("*") if p.is_file()]
    return sorted(str(p.relative_to(folder)) for p in found)


def check_no_row_twice(folder: Path) -> None:
    """Look as a stranger does, who may come at any moment."""
    tables = read_tables(folder)
    assert not tables["runs"].to_pandas().duplicated("run_id").any()
    assert not tables["steps"].to_pandas().duplicated(["run_id", "step", "process"]).any()


def killed_at(number: int) -> Callable[[str, str], None]:
    """Return a hook that kills at one change on storage; nothing happens after that."""
    seen = iter(range(10**6))

    def die(event: str, path: str) -> None:
        if next(seen) >= number:
            raise Killed(event, path)

    return die


def deaths(
    source: Path, tmp_path: Path, doing: Callable[[Storage], Any], on_event: Any
) -> Iterator[Path]:
    """Do something in copies of a folder, killed at every change on storage in turn."""
    events: list[tuple[str, str]] = []
    storage = copy(source, tmp_path / "counted")
    on_event(lambda *event: events.append(event))
    doing(storage)
    on_event(None)
    for number in range(len(events)):
        storage = copy(source, tmp_path / str(number))
        on_event(killed_at(number))
        with pytest.raises(Killed):
            doing(storage)
        on_event(None)
        yield tmp_path / str(number)
        shutil.rmtree(tmp_path / str(number))


def with_damaged_page(data: bytes) -> bytes:
    """Flip a bit that only reading the rows will notice."""
    for place in range(50, len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1
        try:
            from_bytes(bytes(damaged))
        except (OSError, ValueError):
            pq.ParquetFile(pa.BufferReader(bytes(damaged)))
            return bytes(damaged)
    raise AssertionError("nothing is noticed")


# Folding ------------------------------------------------------------------------------------


def test_folded_tables_have_the_same_rows(undisturbed: Path, tmp_path: Path) -> None:
    storage = copy(undisturbed, tmp_path / "s")
    fold(storage, at_end=True)
    assert_same_tables(undisturbed, tmp_path / "s")
    # seven runs, three a part; six of them have steps
    assert [f.split("/")[0] for f in files(tmp_path / "s")] == ["runs"] * 3 + ["steps"] * 2
    assert fold(storage, at_end=True) == 0


def test_while_a_sweep_goes_on_only_full_parts_are_made(undisturbed: Path, tmp_path: Path) -> None:
    storage = copy(undisturbed, tmp_path / "s")
    assert fold(storage) == 6
    names = storage.names("runs")
    assert len([n for n in names if folding.PART.fullmatch(n)]) == 2
    assert len(names) == 3
    assert_same_tables(undisturbed, tmp_path / "s")
    assert fold(storage) == 0


def test_small_parts_are_folded_again_at_the_end(undisturbed: Path, tmp_path: Path) -> None:
    """Launches that each add a run do not leave a part each."""
    storage = Storage(str(tmp_path / "s"))
    for run in SWEEP.runs:
        run_fake(storage, run)
        fold(storage, at_end=True)
    assert_same_tables(undisturbed, tmp_path / "s")
    assert len(storage.names("runs")) <= 4


def test_a_few_runs_stay_as_they_are(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "FEW", 7)
    storage = copy(undisturbed, tmp_path / "s")
    assert fold(storage, at_end=True) == 0
    assert files(tmp_path / "s") == files(undisturbed)


def test_parts_stay_below_their_size(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = copy(undisturbed, tmp_path / "s")
    largest = max(storage.sizes("steps", recursive=True).values())
    monkeypatch.setattr(folding, "BYTES_A_PART", 2 * largest)
    fold(storage, at_end=True)
    assert max(storage.sizes("steps").values()) <= 2 * largest
    assert len(storage.names("steps")) >= 3
    assert_same_tables(undisturbed, tmp_path / "s")


def test_open_runs_are_left_alone(undisturbed: Path, tmp_path: Path) -> None:
    storage = copy(undisturbed, tmp_path / "s")
    other = RunConfig(workload="saddle_2d", rule="gradient_descent", lr=0.5, steps=12)
    run_fake(storage, other, chunks=1)
    fold(storage, at_end=True)
    assert storage.names(f"steps/{other.run_id}") == ["part-00000000.parquet"]
    run_fake(storage, other)
    assert Results(storage).has_run(other.run_id)


def test_what_cannot_be_read_stays_row_and_steps(undisturbed: Path, tmp_path: Path) -> None:
    """A damaged footer, a damaged page, steps that have gone: for a person to look at."""
    storage = copy(undisturbed, tmp_path / "s")
    cut, flipped, gone, *_ = (run.run_id for run in SWEEP.runs)
    path = f"steps/{cut}/part-00000000.parquet"
    storage.write(path, storage.read(path)[:-20])
    path = f"steps/{flipped}/part-00000000.parquet"
    storage.write(path, with_damaged_page(storage.read(path)))
    (tmp_path / "s" / "steps" / gone / "part-00000000.parquet").rename(
        tmp_path / "s" / "steps" / gone / "part-00000003.parquet"
    )
    for _ in range(2):
        fold(storage, at_end=True)
        left = {n.split("/")[1].removesuffix(".parquet") for n in files(tmp_path / "s")}
        assert {i for i in left if not i.startswith("part-")} == {cut, flipped, gone}
    assert set(Results(storage).finished()) == {run.run_id for run in SWEEP.runs}


# Death and readers in the middle ------------------------------------------------------------


def test_death_at_every_change_of_a_fold(undisturbed: Path, tmp_path: Path, on_event: Any) -> None:
    """What is left can be read at once; the next launch has every row, and folds the rest."""
    number = 0
    for folder in deaths(undisturbed, tmp_path, lambda s: fold(s, at_end=True), on_event):
        check_no_row_twice(folder)
        results = Results(Storage(str(folder)))
        assert len(results.finished()) == 7
        assert all(results.has_run(run.run_id) for run in SWEEP.runs)
        plan = make_plan(SWEEP, Storage(str(folder)))
        assert not plan.todo
        clear_the_way(plan, Storage(str(folder)))
        assert_same_tables(undisturbed, folder)
        fold(Storage(str(folder)), at_end=True)
        assert_same_tables(undisturbed, folder)
        assert not [f for f in files(folder) if "_part" in f or f.count("/") > 1]
        number += 1
    assert number > 50


def test_death_while_finishing_what_died(undisturbed: Path, tmp_path: Path, on_event: Any) -> None:
    """Killed before the deletions, then again at every change of what finishes the fold."""
    storage = copy(undisturbed, tmp_path / "first")
    on_event(lambda event, path: killed_at(0)(event, path) if event == "before delete" else None)
    with pytest.raises(Killed):
        fold(storage, at_end=True)
    on_event(None)
    for folder in deaths(tmp_path / "first", tmp_path, folding.finish_interrupted, on_event):
        check_no_row_twice(folder)
        folding.finish_interrupted(Storage(str(folder)))
        assert_same_tables(undisturbed, folder)


def test_death_while_parts_with_room_are_folded_again(
    undisturbed: Path, tmp_path: Path, on_event: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a part supersedes may be other parts: the next driver must know which."""
    storage = Storage(str(tmp_path / "loose"))
    for first in (0, 2, 4):
        for run in SWEEP.runs[first : first + 2]:
            run_fake(storage, run)
        monkeypatch.setattr(folding, "RUNS_A_PART", 2)
        fold(storage, at_end=True)
    run_fake(storage, SWEEP.runs[6])
    monkeypatch.setattr(folding, "RUNS_A_PART", 5)
    assert len(storage.names("runs")) == 4
    number = 0
    for folder in deaths(tmp_path / "loose", tmp_path, lambda s: fold(s, at_end=True), on_event):
        check_no_row_twice(folder)
        folding.finish_interrupted(Storage(str(folder)))
        assert_same_tables(undisturbed, folder)
        number += 1
    assert number > 20


def test_whoever_asks_in_the_middle_of_a_move_gets_the_truth(
    undisturbed: Path, tmp_path: Path, on_event: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row has its ignored name when the files are listed, and its last when they are read."""
    storage = copy(undisturbed, tmp_path / "s")

    def die(event: str, path: str) -> None:
        if event == "before move" and path.startswith("runs/"):
            raise Killed

    on_event(die)
    with pytest.raises(Killed):
        fold(storage, at_end=True)
    on_event(None)
    (pending,) = [n for n in storage.names("runs") if folding.PENDING.fullmatch(n)]
    (run_id, *_) = folding.run_ids(storage, "runs", pending)
    names = Storage.names

    def names_then_move(self: Storage, folder: str, recursive: bool = False) -> list[str]:
        found = names(self, folder, recursive)
        if self is storage:
            folding.finish_interrupted(Storage(storage.location))
            folding._KNOWN.clear()
        return found

    monkeypatch.setattr(Storage, "names", names_then_move)
    assert Results(storage).has_run(run_id)


def test_readers_never_see_a_row_twice(undisturbed: Path, tmp_path: Path, on_event: Any) -> None:
    """At every change on storage; our own reader even sees all rows all the time."""
    storage = copy(undisturbed, tmp_path / "s")
    seen = 0

    def look(event: str, path: str) -> None:  # noqa: ARG001
        nonlocal seen
        check_no_row_twice(tmp_path / "s")
        assert len(Results(storage).finished()) == 7
        assert all(Results(storage).has_run(run.run_id) for run in SWEEP.runs)
        seen += 1

    on_event(look)
    fold(storage, at_end=True)
    Results(storage).forget_runs([])
    assert seen > 50


def test_a_reader_that_is_overtaken_misses_nothing(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its list of files; before it reads them, all of them are folded."""
    storage = copy(undisturbed, tmp_path / "s")
    names = Storage.names
    folds = iter([lambda: fold(Storage(str(tmp_path / "s")), at_end=True)])

    def names_then_fold(self: Storage, folder: str, recursive: bool = False) -> list[str]:
        found = names(self, folder, recursive)
        if self is storage:
            next(folds, lambda: None)()
        return found

    monkeypatch.setattr(Storage, "names", names_then_fold)
    assert len(Results(storage).finished()) == 7


# Guarantees of `Results` --------------------------------------------------------------------


def test_a_folded_run_has_ended_for_whoever_asks(undisturbed: Path, tmp_path: Path) -> None:
    storage = copy(undisturbed, tmp_path / "s")
    before = Results(storage).finished()
    fold(storage, at_end=True)
    results = Results(storage)
    run = SWEEP.runs[0]
    assert results.has_run(run.run_id)
    assert not results.has_run("0" * 16)
    assert results.read_run(run.run_id) == before[run.run_id]
    assert results.read_run("0" * 16) is None
    assert results.finished() == before
    assert results.ended_since([run.run_id, "0" * 16]) == {run.run_id: before[run.run_id]}
    # a process that was about to begin it: it must not begin anew
    session = RunSession(run, sweep="s", storage=storage, chunk_steps=10, build=build_fake)
    assert session.advance().status == "finished"
    check_no_row_twice(tmp_path / "s")
    assert_same_tables(undisturbed, tmp_path / "s")


def test_some_columns_of_the_rows(undisturbed: Path, tmp_path: Path) -> None:
    storage = copy(undisturbed, tmp_path / "s")
    fold(storage)
    rows = Results(storage).finished(["status", "lr"])
    assert {tuple(row) for row in rows.values()} == {("run_id", "status", "lr")}
    assert {row["status"] for row in rows.values()} == {"finished", "diverged", "failed"}


def test_a_folded_run_is_forgotten_and_runs_again(undisturbed: Path, tmp_path: Path) -> None:
    """`--retry-failed`: others in its part are not touched."""
    storage = copy(undisturbed, tmp_path / "s")
    fold(storage, at_end=True)
    plan = make_plan(SWEEP, storage, retry_failed=True)
    assert [run.steps for run in plan.retried] == [9]
    plan = clear_the_way(plan, storage)
    assert len(plan.ended) == 6
    assert [run.steps for run in plan.todo] == [9]
    gone = plan.todo[0].run_id
    assert not Results(storage).has_run(gone)
    assert len(read_tables(tmp_path / "s")["runs"]) == 6
    run_fake(storage, plan.todo[0])
    assert_same_tables(undisturbed, tmp_path / "s")
    fold(storage, at_end=True)
    assert_same_tables(undisturbed, tmp_path / "s")


def test_death_at_every_change_of_forgetting(
    undisturbed: Path, tmp_path: Path, on_event: Any
) -> None:
    """A run of the middle of a part: the others keep their rows, it itself can run again."""
    storage = copy(undisturbed, tmp_path / "folded")
    fold(storage, at_end=True)
    run = SWEEP.runs[0]
    number = 0
    for folder in deaths(
        tmp_path / "folded", tmp_path, lambda s: Results(s).forget_runs([run.run_id]), on_event
    ):
        storage = Storage(str(folder))
        check_no_row_twice(folder)
        assert len(Results(storage).finished()) >= 6
        Results(storage).tidy(Results(storage).finished())
        Results(storage).forget_runs([run.run_id])
        assert run.run_id not in read_tables(folder)["steps"]["run_id"].to_pylist()
        run_fake(storage, run)
        assert_same_tables(undisturbed, folder)
        number += 1
    assert number >= 10


def test_tidy_deletes_what_a_lost_process_wrote_to_folded_runs(
    undisturbed: Path, tmp_path: Path
) -> None:
    storage = copy(undisturbed, tmp_path / "s")
    run_id = SWEEP.runs[0].run_id
    row = storage.read(f"runs/{run_id}.parquet")
    part = storage.read(f"steps/{run_id}/part-00000000.parquet")
    fold(storage, at_end=True)
    storage.write(f"runs/{run_id}.parquet", row)
    storage.write(f"steps/{run_id}/part-00000010.parquet", part)
    Results(storage).tidy(Results(storage).finished())
    assert_same_tables(undisturbed, tmp_path / "s")
    assert not [f for f in files(tmp_path / "s") if run_id in f]


def test_folded_steps_without_a_row_go(undisturbed: Path, tmp_path: Path) -> None:
    """A part of rows was deleted by hand: its runs are new, and their old steps must not stay."""
    storage = copy(undisturbed, tmp_path / "s")
    fold(storage, at_end=True)
    full = max(storage.names("runs"), key=lambda name: len(folding.run_ids(storage, "runs", name)))
    storage.delete(f"runs/{full}")
    plan = clear_the_way(make_plan(SWEEP, storage), storage)
    assert len(plan.fresh) == 3
    for run in plan.todo:
        run_fake(storage, run)
    assert_same_tables(undisturbed, tmp_path / "s")


def test_a_damaged_part_is_an_error_that_names_it(undisturbed: Path, tmp_path: Path) -> None:
    storage = copy(undisturbed, tmp_path / "s")
    fold(storage, at_end=True)
    name = storage.names("runs")[0]
    storage.write(f"runs/{name}", storage.read(f"runs/{name}")[:-9])
    with pytest.raises(StorageError, match=rf"cannot read \S+/runs/{name}: .*delete it to") as info:
        make_plan(SWEEP, storage)
    assert info.value.lasting
    assert "\n" not in str(info.value)


# Schemas ------------------------------------------------------------------------------------


def test_files_of_every_age_fold_together(undisturbed: Path, tmp_path: Path) -> None:
    """Without a column added since, and with a plug-in's column that is unknown here."""
    storage = copy(undisturbed, tmp_path / "s")
    old, other = (run.run_id for run in SWEEP.runs[:2])
    table = from_bytes(storage.read(f"runs/{old}.parquet")).drop_columns(["scheme"])
    storage.write(f"runs/{old}.parquet", to_bytes([table], table.schema))
    table = from_bytes(storage.read(f"runs/{other}.parquet"))
    table = table.append_column("tau", pa.array([0.5]))
    storage.write(f"runs/{other}.parquet", to_bytes([table], table.schema))
    before = Results(storage).finished()
    fold(storage, at_end=True)
    rows = Results(storage).finished()
    assert rows[old]["scheme"] == "euler"
    assert rows[other]["tau"] == 0.5
    assert {i: {"tau": None, **row} for i, row in before.items()} == {
        i: {"tau": None, **row} for i, row in rows.items()
    }


def test_conforming_keeps_types_and_metadata() -> None:
    schema = arrow_schema("runs")
    empty = schema.empty_table()
    tables, found = conform([empty.drop_columns(["lr"]), empty], "runs")
    assert found.equals(schema, check_metadata=True)
    assert all(table.schema.equals(schema) for table in tables)


def test_equal_words_are_one_object() -> None:
    """100,000 rows repeat the names of a few workloads and versions."""
    table = pa.table({"device": ["a cpu", "a cpu"], "lr": [1.0, None]})
    one, two = rows_of(table, "runs", ["device", "lr", "scheme"])
    assert one == {"device": "a cpu", "lr": 1.0, "scheme": "euler"}
    assert two["lr"] is None
    assert one["device"] is two["device"]


# Other readers ------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["single", "mixed", "folded"])
def test_other_tools_open_the_tables_as_they_are(
    undisturbed: Path, tmp_path: Path, layout: str
) -> None:
    """The lines of docs/cluster.md."""
    duckdb = pytest.importorskip("duckdb")
    polars = pytest.importorskip("polars")
    folder = tmp_path / "s"
    storage = copy(undisturbed, folder)
    if layout != "single":
        fold(storage, at_end=layout == "folded")
    expected = read_tables(undisturbed)
    for table in ("runs", "steps"):
        count = expected[table].num_rows
        losses = expected[table].column("lr" if table == "runs" else "train_loss").to_pandas().sum()
        column = "lr" if table == "runs" else "train_loss"
        frame = pd.read_parquet(folder / table)
        assert (len(frame), frame[column].sum()) == (count, pytest.approx(losses))
        query = f"select count(*), sum({column}) from '{folder}/{table}/**/*.parquet'"
        assert duckdb.sql(query).fetchall()[0] == (count, pytest.approx(losses))
        lazy = polars.scan_parquet(f"{folder}/{table}/**/*.parquet")
        found = lazy.select(polars.len(), polars.col(column).sum()).collect().row(0)
        assert found == (count, pytest.approx(losses))


def test_other_tools_see_nothing_twice_in_the_middle_of_a_fold(
    undisturbed: Path, tmp_path: Path, on_event: Any
) -> None:
    duckdb = pytest.importorskip("duckdb")
    polars = pytest.importorskip("polars")
    folder = tmp_path / "s"
    storage = copy(undisturbed, folder)
    names = {"pandas": 0, "duckdb": 0, "polars": 0}

    def look(event: str, path: str) -> None:  # noqa: ARG001
        if not list((folder / "runs").glob("*.parquet")):
            return
        pattern = f"{folder}/runs/**/*.parquet"
        ids = {
            "pandas": pd.read_parquet(folder / "runs")["run_id"].tolist(),
            "duckdb": [row[0] for row in duckdb.sql(f"select run_id from '{pattern}'").fetchall()],
            "polars": polars.read_parquet(pattern)["run_id"].to_list(),
        }
        for name, found in ids.items():
            assert len(found) == len(set(found)), name
            names[name] += 1

    on_event(look)
    fold(storage, at_end=True)
    assert min(names.values()) > 20


def test_a_part_says_what_is_in_it(undisturbed: Path, tmp_path: Path) -> None:
    storage = copy(undisturbed, tmp_path / "s")
    fold(storage, at_end=True)
    for table in ("runs", "steps"):
        assert storage.names(table)
        for name in storage.names(table):
            file = pq.ParquetFile(tmp_path / "s" / table / name)
            metadata = file.metadata.metadata
            assert metadata[b"cflows_ray.table"].decode() == table
            assert metadata[b"cflows_ray.schema"] == b"1"
            ids = file.read(columns=["run_id"])["run_id"].to_pandas()
            assert json.loads(metadata[b"cflows_ray.run_ids"]) == list(ids.unique())
            changes = (ids != ids.shift()).sum()
            assert changes == ids.nunique()  # the rows of a run lie together
