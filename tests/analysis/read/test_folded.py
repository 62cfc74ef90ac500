"""Folded runs, of which one file has many, give the numbers that they gave before, bit for bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from google_storage import serve_bucket
from synthetic import RunTruth, example_runs, steps_table, study_runs, write_run, write_sweep

import analysis
from analysis import Results, ResultsError, load
from analysis.__main__ import main
from analysis.read import folders
from analysis.report import study_tables
from cflows_ray.store import Storage, fold, folding, parquet
from cflows_ray.store import storage as storage_module

COLUMNS = ["train_loss", "sigma_eigs"]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make four runs a full part, no run too few to fold, and two runs a row group."""
    monkeypatch.setattr(folding, "RUNS_A_PART", 4)
    monkeypatch.setattr(folding, "FEW", 0)
    monkeypatch.setattr(parquet, "GROUP_ROWS", 2 * steps_table(example_runs()[0]).num_rows)


@pytest.fixture
def on_event() -> Iterator[Callable[[Any], None]]:
    """Set what is called around every change on storage."""
    yield lambda hook: setattr(storage_module, "on_event", hook)
    storage_module.on_event = None


@pytest.fixture(scope="module")
def unfolded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a sweep of six runs, one file each; tests must not change it."""
    return write_sweep(tmp_path_factory.mktemp("unfolded"), example_runs(), name="s", parts=1)


def in_layout(source: Path, place: Path, layout: str) -> Path:
    """Copy a sweep's folder and fold none, some or all of its runs."""
    folder = place / layout / source.name
    shutil.copytree(source, folder)
    if layout != "single":
        fold(Storage(str(folder)), at_end=layout == "folded")
        singles = [f for f in folder.rglob("*.parquet") if not folders.is_part(str(f))]
        assert bool(singles) == (layout == "mixed")
        assert list((folder / "steps").glob("part-*.parquet"))
    return folder


def assert_same_results(one: Results, other: Results) -> None:
    """Compare both tables, their attributes, and all that can be asked of single runs."""
    assert_same(one.runs, other.runs)
    assert_same(one.steps, other.steps)
    assert one.step_columns == other.step_columns
    for mine, its in zip(one.iter_steps(COLUMNS), other.iter_steps(COLUMNS), strict=True):
        assert_same(mine, its)
    last = str(one.runs["run_id"].iloc[-1])
    assert_same(one.run_steps(last), other.run_steps(last))


def assert_same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert one.attrs == other.attrs


# The same numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["mixed", "folded"])
@pytest.mark.parametrize("where", [None, {"rule": "rmsprop", "process": "central"}])
def test_tables(unfolded: Path, tmp_path: Path, layout: str, where: Any) -> None:
    folder = in_layout(unfolded, tmp_path, layout)
    assert len(load(folder, where=where).steps) > 0
    assert_same_results(load(unfolded, where=where), load(folder, where=where))
    assert_same(
        load(unfolded, where=[("step", "<", 50)], columns=COLUMNS).steps,
        load(folder, where=[("step", "<", 50)], columns=COLUMNS).steps,
    )


@pytest.mark.parametrize("layout", ["mixed", "folded"])
def test_accuracy_and_study(tmp_path: Path, layout: str) -> None:
    runs = study_runs(seeds=2, steps=60)
    source = write_sweep(tmp_path, runs, name="s", parts=1)
    folder = in_layout(source, tmp_path, layout)
    accuracy = analysis.accuracy(folder)
    assert len(accuracy) == 2 * len(runs)
    assert_same(analysis.accuracy(source), accuracy)
    before, after = (study_tables(analysis.study(place)) for place in (source, folder))
    assert before.keys() == after.keys()
    for name, table in after.items():
        assert_same(before[name], table)
    assert_same(analysis.covariance_points(source), analysis.covariance_points(folder))


def test_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [replace(run, steps=60) for run in example_runs()[:4]]
    source = write_sweep(tmp_path, runs, name="s", parts=1)
    written: dict[str, dict[str, bytes]] = {}
    for layout in ("single", "folded"):
        folder = in_layout(source, tmp_path, layout)
        out = tmp_path / "out"
        assert main([str(folder), "--out", str(out), "--format", "csv"]) == 0
        found = {str(f.relative_to(out)): f.read_bytes() for f in out.rglob("*") if f.is_file()}
        found["printed"] = capsys.readouterr().out.encode()
        place = str(folder).encode()
        written[layout] = {n: text.replace(place, b"FOLDER") for n, text in found.items()}
        shutil.rmtree(out)
    assert len(written["single"]) > 12
    assert written["folded"].keys() == written["single"].keys()
    for name, content in written["folded"].items():
        assert content == written["single"][name], name


def test_files_of_every_age_and_other_tools(unfolded: Path, tmp_path: Path) -> None:
    """A column that only single files have; a part without our metadata."""
    folder = in_layout(unfolded, tmp_path, "folded")
    part = max((folder / "steps").glob("part-*.parquet"), key=lambda f: f.stat().st_size)
    pq.write_table(pq.read_table(part).replace_schema_metadata(), part)
    assert b"cflows_ray.run_ids" not in (pq.read_metadata(part).metadata or {})
    assert_same_results(load(unfolded), load(folder))
    run = RunTruth(run_id="new", rule="rmsprop", lr=1.0, beta2=0.5, steps=20)
    write_run(folder, run, sweep="s", parts=1)
    file = folder / "steps" / "new" / "part-00000000.parquet"
    table = pq.read_table(file)
    pq.write_table(table.append_column("tau", pa.array([0.5] * len(table))), file)
    steps = load(folder).steps
    assert steps["tau"].notna().sum() == len(table)
    assert steps.loc[steps["run_id"] == "new", "tau"].eq(0.5).all()


def test_object_stores(unfolded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server_module = pytest.importorskip("moto.server")
    folder = in_layout(unfolded, tmp_path, "mixed")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        query = f"?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
        store, _ = pyarrow.fs.FileSystem.from_uri(
            f"s3://bucket/x{query}&allow_bucket_creation=true"
        )
        store.create_dir("bucket")
        pyarrow.fs.copy_files(str(folder), "bucket/r/s", destination_filesystem=store)
        uri = f"s3://bucket/r/s{query}"
        results = load(uri)
        assert_same_results(load(unfolded), results)
        fold(Storage(uri), at_end=True)  # what `results` has listed is gone
        assert_same_results(load(unfolded), results)
        assert_same_results(load(unfolded), load(uri))
    finally:
        server.stop()


def test_google_storage(unfolded: Path, tmp_path: Path) -> None:
    folder = in_layout(unfolded, tmp_path, "folded")
    with serve_bucket(folder.parent) as host:
        query = f"?scheme=http&endpoint_override={host}&retry_limit_seconds=5"
        assert_same_results(load(unfolded), load(f"gs://anonymous@bucket/s{query}"))


# While runs are folded ----------------------------------------------------------------------


def test_every_row_is_there_once_at_every_moment_of_a_fold(
    tmp_path: Path, on_event: Callable[[Any], None]
) -> None:
    runs = [RunTruth(run_id=f"r{i}", seed=i, steps=12) for i in range(6)]
    folder = write_sweep(tmp_path, runs, name="s", parts=1)
    storage = Storage(str(folder))
    early = load(folder, columns=["train_loss"])
    runs_frame, steps_frame = early.runs, load(folder, columns=["train_loss"]).steps
    one = early.run_steps("r3")
    seen = 0

    def look(event: str, path: str) -> None:  # noqa: ARG001
        nonlocal seen
        found = load(folder, columns=["train_loss"])
        assert_same(found.runs, runs_frame)
        assert_same(found.steps, steps_frame)
        assert_same(early.run_steps("r3"), one)  # opened before anything was folded
        seen += 1

    on_event(look)
    fold(storage)
    fold(storage, at_end=True)
    write_run(folder, RunTruth(run_id="r6", seed=6, steps=12), sweep="s", parts=1)
    later = load(folder, columns=["train_loss"])
    runs_frame, steps_frame = later.runs, later.steps
    fold(storage, at_end=True)  # a part with room for more is folded again
    assert seen > 60
    assert_same(later.steps, steps_frame)


@pytest.mark.parametrize("function", ["get_runs", "read_footers", "with_folded_runs", "_read_runs"])
def test_a_fold_that_overtakes_load(
    unfolded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """What has just been listed is folded before it is read."""
    folder = in_layout(unfolded, tmp_path, "mixed" if function == "with_folded_runs" else "single")
    module, name = (
        (folders, "list_parquet") if function == "get_runs" else (analysis.read.loading, function)
    )
    original = getattr(module, name)
    folds = iter([lambda: fold(Storage(str(folder)), at_end=True)])

    def fold_then(*arguments: Any, **named: Any) -> Any:
        if name == "list_parquet":  # its list is old when it is returned
            found = original(*arguments, **named)
            next(folds, lambda: None)()
            return found
        next(folds, lambda: None)()
        return original(*arguments, **named)

    monkeypatch.setattr(module, name, fold_then)
    assert_same_results(load(folder), load(unfolded))
    assert not list((folder / "steps").glob("*/*"))


def test_a_row_in_a_part_and_a_file_of_its_own_counts_once(unfolded: Path, tmp_path: Path) -> None:
    """A process cut off from its driver wrote late to a run that is folded."""
    folder = in_layout(unfolded, tmp_path, "folded")
    run_id = example_runs()[0].run_id
    shutil.copy(unfolded / "runs" / f"{run_id}.parquet", folder / "runs")
    (folder / "steps" / run_id).mkdir()
    late = steps_table(RunTruth(run_id=run_id, steps=30))
    pq.write_table(late, folder / "steps" / run_id / "part-00000020.parquet")
    assert_same_results(load(folder), load(unfolded))


def test_a_failed_run_that_another_sweep_took_further(tmp_path: Path) -> None:
    """Rows are counted of the run, not of the part that it lies in."""
    short = [RunTruth(run_id=f"r{i}", seed=i, steps=20, status="failed") for i in range(4)]
    write_sweep(tmp_path, short, name="one", parts=1)
    write_sweep(tmp_path, [RunTruth(run_id="r1", seed=1, steps=40, status="failed")], name="two")
    fold(Storage(str(tmp_path / "one")), at_end=True)
    results = load(tmp_path)
    assert results.runs.set_index("run_id")["sweep"].to_dict()["r1"] == "two"
    assert results.run_steps("r1")["step"].max() == 40


def test_a_run_in_two_sweeps_of_which_one_is_folded_meanwhile(tmp_path: Path) -> None:
    """Its steps stay those of the sweep that it was taken from."""
    runs = [RunTruth(run_id=f"r{i}", seed=i, steps=20, status="failed") for i in range(4)]
    write_sweep(tmp_path, runs, name="one", parts=1)
    write_sweep(tmp_path, [replace(runs[1], steps=40)], name="two", parts=1)
    results = load(tmp_path)
    fold(Storage(str(tmp_path / "one")), at_end=True)
    assert results.steps.groupby("run_id", observed=True)["step"].max().tolist() == [20, 40, 20, 20]


# Damage and memory --------------------------------------------------------------------------


def test_a_damaged_part_is_named(unfolded: Path, tmp_path: Path) -> None:
    folder = in_layout(unfolded, tmp_path, "folded")
    part = max((folder / "steps").glob("part-*.parquet"), key=lambda f: f.stat().st_size)
    lost = json.loads(pq.read_metadata(part).metadata[b"cflows_ray.run_ids"])
    whole = part.read_bytes()
    first = bytearray(whole)
    first[4:3000] = bytes(2996)
    part.write_bytes(first)
    with pytest.raises(ResultsError, match=rf"{part.name}: is corrupt"):
        _ = load(folder).steps
    # a run of another row group: only its own is read
    assert_same(load(folder).run_steps(lost[-1]), load(unfolded).run_steps(lost[-1]))
    part.write_bytes(whole[:-9])
    with pytest.raises(ResultsError, match=rf"{part.name}: is truncated"):
        load(folder)
    results = load(folder, on_bad_file="skip")
    assert results.problems["file"].tolist() == [str(part)]
    assert len(results.runs) == 6
    assert set(results.steps["run_id"]) == {r.run_id for r in example_runs()} - set(lost)


def test_a_part_is_read_run_by_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held is a few of its runs: in use, read ahead, being read."""
    monkeypatch.setattr(parquet, "GROUP_ROWS", 2**13)
    monkeypatch.setattr(folding, "RUNS_A_PART", 100)
    runs = [RunTruth(run_id=f"r{i:02d}", seed=i, steps=2000) for i in range(24)]
    folder = write_sweep(tmp_path, runs, parts=1)
    fold(Storage(str(folder)), at_end=True)
    assert len(list((folder / "steps").iterdir())) == 1
    results = load(folder)
    analysis.accuracy(results)  # caches and imports, once
    before = pa.total_allocated_bytes()
    peak = max(pa.total_allocated_bytes() - before for _ in results.traces())
    assert 0 < peak < 6 * steps_table(runs[0]).nbytes
