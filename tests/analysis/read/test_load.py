"""Opening results folders, whole and damaged."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic import OF_RULES, RunTruth, example_runs, steps_table, write_sweep

import analysis
from analysis import ResultsError, load
from cflows_ray.schema import arrow_schema, column_names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a sweep of two runs that a test may damage."""
    runs = [RunTruth(run_id=name, seed=i, steps=100) for i, name in enumerate(("aa", "bb"))]
    return write_sweep(tmp_path, runs, name="sweep")


def test_both_tables_come_back_whole(example_sweep: Path) -> None:
    results = load(example_sweep)
    assert list(results.runs.columns) == [*column_names("runs"), *OF_RULES]
    assert list(results.steps.columns) == column_names("steps")
    runs = example_runs()
    assert len(results.runs) == len(runs)
    assert len(results.steps) == sum(steps_table(r).num_rows for r in runs)
    written = steps_table(runs[0]).to_pandas()
    mine = results.steps[results.steps["run_id"] == runs[0].run_id]
    mine = mine.sort_values("step", kind="stable").reset_index(drop=True)
    for column in ("train_loss", "distance_to_discrete", "num_critical"):
        pd.testing.assert_series_equal(
            mine[column].astype("float64"), written[column].astype("float64")
        )


def test_frames_keep_units_and_categories(example_sweep: Path) -> None:
    results = load(example_sweep)
    assert results.steps.attrs["units"]["train_loss"] == "loss"
    assert results.runs.attrs["units"]["wall_s"] == "s"
    assert results.steps["process"].dtype == "category"
    assert results.runs["rule"].dtype == "category"
    assert results.steps.query("process == 'central'").attrs == results.steps.attrs


def test_null_stays_null(example_sweep: Path) -> None:
    steps = load(example_sweep, where={"rule": "gradient_descent"}).steps
    assert steps["nu_rel_error"].isna().all()
    assert steps.loc[steps["process"] == "stable", "num_critical"].isna().all()


def test_filters_reach_runs_and_steps(example_sweep: Path) -> None:
    results = load(
        example_sweep,
        where=[("lr", ">", 0.005), ("process", "in", ["central"]), ("step", "<", 10)],
        columns=["train_loss"],
    )
    assert set(results.runs["rule"]) == {"gradient_descent"}
    assert list(results.steps.columns) == ["run_id", "step", "process", "train_loss"]
    assert len(results.steps) == len(results.runs) * 10
    assert set(results.steps["process"]) == {"central"}


def test_files_of_filtered_runs_are_not_read(folder: Path) -> None:
    part = next((folder / "steps" / "bb").iterdir())
    results = load(folder, where={"seed": 0})
    part.unlink()  # had it been read, this would be an error
    assert set(results.steps["run_id"]) == {"aa"}


def test_streaming_equals_whole(example_sweep: Path) -> None:
    results = load(example_sweep)
    streamed = pd.concat(list(results.iter_steps()), ignore_index=True)
    assert len(streamed) == len(results.steps)
    assert set(streamed["run_id"].astype("str")) == set(results.steps["run_id"].astype("str"))
    one = next(results.iter_steps(columns=["train_loss"]))
    assert list(one.columns) == ["run_id", "step", "process", "train_loss"]


def test_a_run_without_a_row_is_running(folder: Path) -> None:
    (folder / "runs" / "bb.parquet").unlink()
    runs = load(folder).runs.set_index("run_id")
    assert runs.loc["bb", "status"] == "running"
    assert pd.isna(runs.loc["bb", "lr"])
    assert set(analysis.accuracy(load(folder))["run_id"]) == {"aa"}


def test_names_being_written_are_ignored(folder: Path) -> None:
    (folder / "runs" / "_tmp.parquet").write_bytes(b"PAR1half")
    (folder / "steps" / "aa" / ".part.parquet").write_bytes(b"")
    (folder / "steps" / "_staging").mkdir()
    (folder / "steps" / "_staging" / "x.parquet").write_bytes(b"")
    assert len(load(folder).runs) == 2


def test_hive_style_folders_are_read_too(folder: Path) -> None:
    (folder / "steps" / "aa").rename(folder / "steps" / "run_id=aa")
    assert set(load(folder).steps["run_id"]) == {"aa", "bb"}


def test_parts_merged_since_they_were_listed(folder: Path) -> None:
    results = load(folder)
    place = folder / "steps" / "aa"
    parts = sorted(place.iterdir())
    whole = pa.concat_tables([pq.read_table(p) for p in parts])
    for part in parts:
        part.unlink()
    pq.write_table(whole, place / "part-00000000.parquet")
    assert (results.steps["run_id"] == "aa").sum() == whole.num_rows


def test_a_folder_of_sweeps_and_the_sweep_filter(tmp_path: Path) -> None:
    write_sweep(tmp_path, [RunTruth(run_id="a1", steps=40)], name="one")
    write_sweep(tmp_path, [RunTruth(run_id="b1", steps=40)], name="two")
    assert set(load(tmp_path).runs["sweep"]) == {"one", "two"}
    assert set(load(tmp_path, sweep="two").runs["run_id"]) == {"b1"}
    assert set(load(tmp_path, sweep=["one", "two"]).runs["run_id"]) == {"a1", "b1"}
    with pytest.raises(ResultsError, match=r"three.*one.*two"):
        load(tmp_path, sweep="three")


def test_a_run_in_two_sweeps_counts_once(tmp_path: Path) -> None:
    write_sweep(tmp_path, [RunTruth(run_id="same", steps=40)], name="one")
    write_sweep(tmp_path, [RunTruth(run_id="same", steps=40)], name="two")
    results = load(tmp_path)
    assert len(results.runs) == 1
    assert len(results.steps) == steps_table(RunTruth(run_id="same", steps=40)).num_rows


def _begun(root: Path, name: str, run: RunTruth, parts: int) -> Path:
    """Write a sweep in which this run has so many of its parts, and no row."""
    folder = write_sweep(root, [run], name=name, parts=10)
    (folder / "runs" / f"{run.run_id}.parquet").unlink()
    for part in sorted((folder / "steps" / run.run_id).iterdir())[parts:]:
        part.unlink()
    return folder


@pytest.mark.parametrize("names", [("one", "two"), ("two", "one")])
def test_a_run_that_another_sweep_finished(tmp_path: Path, names: tuple[str, str]) -> None:
    run = RunTruth(run_id="same", steps=40)
    begun, finished = names
    _begun(tmp_path, begun, run, parts=3)
    write_sweep(tmp_path, [run], name=finished)
    for where in (None, {"lr": run.lr}, {"sweep": finished}):
        results = load(tmp_path, where=where)
        assert results.runs[["sweep", "status"]].to_numpy().tolist() == [[finished, "finished"]]
        assert len(results.steps) == steps_table(run).num_rows
    assert analysis.accuracy(load(tmp_path))["last_step"].tolist() == [40, 40]


@pytest.mark.parametrize("names", [("one", "two"), ("two", "one")])
def test_a_run_open_in_two_sweeps_is_listed_once(tmp_path: Path, names: tuple[str, str]) -> None:
    run = RunTruth(run_id="same", steps=40)
    _begun(tmp_path, names[0], run, parts=3)
    further = _begun(tmp_path, names[1], run, parts=6)
    # One part that was merged from six holds as much as they do.
    parts = sorted((further / "steps" / "same").iterdir())
    whole = pa.concat_tables([pq.read_table(p, partitioning=None) for p in parts])
    for part in parts[1:]:
        part.unlink()
    pq.write_table(whole, parts[0])
    results = load(tmp_path)
    assert results.runs[["sweep", "status"]].to_numpy().tolist() == [[names[1], "running"]]
    assert len(results.steps) == whole.num_rows


def test_a_run_that_failed_in_one_sweep_and_finished_in_another(tmp_path: Path) -> None:
    run = RunTruth(run_id="same", steps=40)
    write_sweep(tmp_path, [replace(run, status="failed", steps=20)], name="one")
    two = write_sweep(tmp_path, [run], name="two")
    results = load(tmp_path)
    assert results.runs[["sweep", "status"]].to_numpy().tolist() == [["two", "finished"]]
    assert results.steps["step"].max() == 40
    with pytest.raises(ResultsError, match=r"status is one of \['finished'\]"):
        load(tmp_path, where={"status": "failed"})
    asked = load(tmp_path, where={"sweep": "one"})  # what that sweep holds, when asked for it
    assert asked.runs["status"].tolist() == ["failed"]
    assert asked.steps["step"].max() == 20

    write_sweep(tmp_path, [run], name="three")
    _truncate(next((two / "steps" / "same").iterdir()))
    skipped = load(tmp_path, on_bad_file="skip")
    assert skipped.runs["sweep"].tolist() == ["three"]
    assert len(skipped.steps) == steps_table(run).num_rows


def test_file_uri(example_sweep: Path) -> None:
    assert len(load(example_sweep.as_uri()).runs) == len(example_runs())


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"results folder does not exist: .*nowhere"):
        load(tmp_path / "nowhere")


def test_a_file_is_not_a_folder(folder: Path) -> None:
    with pytest.raises(ResultsError, match="is a file; give the folder"):
        load(folder / "sweep.json")


def test_a_folder_without_a_sweep(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no sweep in"):
        load(tmp_path)


def test_a_sweep_that_was_only_launched(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ResultsError, match="empty sweep: no run has written anything"):
        load(tmp_path)


def test_other_sweeps_may_be_damaged(tmp_path: Path) -> None:
    write_sweep(tmp_path, [RunTruth(run_id="a1", steps=40)], name="one")
    bad = write_sweep(tmp_path, [RunTruth(run_id="b1", steps=40)], name="two")
    (bad / "runs" / "b1.parquet").write_bytes(b"")
    assert len(load(tmp_path, sweep="one").runs) == 1


def test_an_empty_sweep(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="empty sweep: no run has written anything"):
        load(write_sweep(tmp_path, []))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"lrr": 0.1}, "no column 'lrr'; did you mean 'lr'"),
        ({"lr": "0.2"}, "where: lr must be compared with a number, got '0.2'"),
        ({"lr": [0.1, "0.2"]}, "where: lr must be compared with a number, got '0.2'"),
        ({"seed": True}, "where: seed must be compared with a number, got True"),
        ({"rule": 3}, "where: rule must be compared with text, got 3"),
        ({"bias_correction": "no"}, "bias_correction must be compared with True or False, got"),
        ([("step", "<", "9")], "where: step must be compared with a number, got '9'"),
        ([("rule", "in", "rmsprop")], "where: rule in takes a list of values, got 'rmsprop'"),
        ([("lr", "<", None)], "where: lr must be compared with a number, got None"),
        ({"effective_eigs": 2.0}, "where: effective_eigs holds lists"),
        (
            {"rule": "gd"},
            "where: no run matches rule == 'gd'; rule is one of 'gradient_descent', 'rmsprop'",
        ),
        ({"sweep": ["x"]}, "where: no run matches sweep in 'x'; sweep is one of 'example'"),
        ({"seed": 1, "lr": [3]}, "where: no run matches lr in 3; lr is one of 0.001, 0.01, 0.02"),
        ({"rule": "rmsprop", "lr": 0.01}, "where: no run matches all of rule == 'rmsprop', lr =="),
        ([("lr", "~", 0.1)], "operator must be one of"),
        (3, "where must be a mapping"),
    ],
)
def test_bad_filters(example_sweep: Path, where: object, message: str) -> None:
    with pytest.raises(ResultsError) as caught:
        load(example_sweep, where=where)  # type: ignore[arg-type]
    assert message in str(caught.value).replace("[", "").replace("]", "")


def test_filters_take_numpy_and_null(example_sweep: Path) -> None:
    assert len(load(example_sweep, where={"lr": np.array([0.01, 0.02])}).runs) == 4
    assert len(load(example_sweep, where={"seed": np.int64(1)}).runs) == 3
    assert set(load(example_sweep, where={"beta2": None}).runs["rule"]) == {"gradient_descent"}
    assert set(load(example_sweep, where=[("beta2", "!=", None)]).runs["rule"]) == {"rmsprop"}


def test_bad_column(example_sweep: Path) -> None:
    with pytest.raises(ResultsError, match="no column 'loss' in steps"):
        load(example_sweep, columns=["loss"])


def test_columns_added_later_may_be_absent(folder: Path) -> None:
    """They read as what held before they were there; so does a filter on them."""
    file = min((folder / "runs").glob("*.parquet"))
    pq.write_table(pq.read_table(file).drop_columns(["scheme"]), file)
    runs = load(folder).runs
    assert len(runs) == 2
    assert set(runs["scheme"]) == {"euler"}
    assert len(load(folder, where={"scheme": "euler"}).runs) == len(runs)


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def _foreign(file: Path) -> None:
    pq.write_table(pa.table({"x": [1, 2]}), file)


def _other_version(file: Path) -> None:
    table = pq.read_table(file)
    metadata = {**(table.schema.metadata or {}), b"cflows_ray.schema": b"99"}
    pq.write_table(table.replace_schema_metadata(metadata), file)


def _wrong_type(file: Path) -> None:
    table = pq.read_table(file)
    index = table.schema.get_field_index("status")
    pq.write_table(table.set_column(index, "status", pa.array([1] * len(table))), file)


DAMAGE = {
    "truncated": (_truncate, "is truncated or half-written"),
    "empty": (lambda f: f.write_bytes(b""), r"is empty \(0 bytes\)"),
    "text": (lambda f: f.write_text("run_id,step\n" * 9), "is not a Parquet file"),
    "foreign": (_foreign, "another schema: the table '.*' needs a column 'run_id'"),
    "version": (_other_version, "has results schema '99'; this version reads schema '1'"),
    "type": (_wrong_type, "column 'status' is int64, not string"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("table", ["runs", "steps"])
def test_damaged_files(folder: Path, damage: str, table: str) -> None:
    pattern = "runs/bb.parquet" if table == "runs" else "steps/bb/*.parquet"
    file = next(folder.glob(pattern))
    change, message = DAMAGE[damage]
    change(file)
    with pytest.raises(ResultsError, match=message) as caught:
        load(folder)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)

    results = load(folder, on_bad_file="skip")
    assert list(results.problems["file"]) == [str(file)]
    frame = analysis.accuracy(results).set_index(["run_id", "flow"])
    assert frame.loc[("aa", "central"), "final_distance"] == pytest.approx(0.02)
    if table == "steps":
        assert frame.loc[("bb", "central"), "flow_status"] == "no_data"


def test_damaged_pages_are_found_when_read(folder: Path) -> None:
    file = next((folder / "steps" / "bb").iterdir())
    content = bytearray(file.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    file.write_bytes(bytes(content))
    with pytest.raises(ResultsError, match="is corrupt") as caught:
        _ = load(folder).steps
    assert str(file) in str(caught.value)
    results = load(folder, on_bad_file="skip")
    assert set(results.steps["run_id"]) == {"aa"}
    assert list(results.problems["file"]) == [str(file)]


def test_when_every_file_is_bad_skipping_does_not_hide_it(folder: Path) -> None:
    for file in folder.rglob("*.parquet"):
        _foreign(file)
    with pytest.raises(ResultsError, match=r"another schema.*more bad files"):
        load(folder, on_bad_file="skip")


def test_rows_that_are_there_twice(folder: Path) -> None:
    place = folder / "steps" / "aa"
    shutil.copy(place / "part-00000000.parquet", place / "part-00000001.parquet")
    with pytest.raises(ResultsError, match="holds rows twice"):
        analysis.accuracy(load(folder))


def test_rows_of_another_run(folder: Path) -> None:
    source = folder / "steps" / "bb" / "part-00000000.parquet"
    shutil.copy(source, folder / "steps" / "aa" / "part-00000000.parquet")
    with pytest.raises(ResultsError, match="rows of another run, 'bb'"):
        analysis.accuracy(load(folder))


def test_large_strings_and_further_columns_are_read(folder: Path) -> None:
    for file in folder.rglob("*.parquet"):
        table = pq.read_table(file, partitioning=None)
        fields = [
            pa.field(f.name, pa.large_string()) if f.type == pa.string() else f
            for f in table.schema
        ]
        table = table.cast(pa.schema(fields)).append_column("extra", pa.nulls(len(table)))
        pq.write_table(table, file)
    results = load(folder)
    assert results.steps["process"].nunique() == 4
    assert results.steps["extra"].isna().all()
    assert results.runs["extra"].isna().all()


def test_the_example_follows_the_schema(example_sweep: Path) -> None:
    file = next(example_sweep.glob("steps/*/*.parquet"))
    assert pq.read_schema(file).equals(arrow_schema("steps"))


def test_bad_option(example_sweep: Path) -> None:
    with pytest.raises(ValueError, match="on_bad_file must be 'raise' or 'skip', got 'warn'"):
        load(example_sweep, on_bad_file="warn")
