"""Results on object stores, and stores that cannot be reached."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow.fs
import pytest
from google_storage import serve_bucket

import analysis
from analysis import ResultsError, load
from analysis.__main__ import main
from analysis.read.folders import with_time_limit


def test_s3(example_sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server_module = pytest.importorskip("moto.server")
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
        pyarrow.fs.copy_files(
            str(example_sweep), "bucket/results/example", destination_filesystem=store
        )
        results = load(f"s3://bucket/results/example{query}", where={"rule": "rmsprop"})
        assert len(results.runs) == 2
        frame = analysis.accuracy(results, flows=["central"])
        assert frame["final_distance"].tolist() == pytest.approx([0.02, 0.04])
        with pytest.raises(FileNotFoundError, match="results folder does not exist"):
            load(f"s3://bucket/results/other{query}")
    finally:
        server.stop()


def test_google_storage(example_sweep: Path) -> None:
    with serve_bucket(example_sweep.parent) as host:
        query = f"?scheme=http&endpoint_override={host}&retry_limit_seconds=5"
        uri = f"gs://anonymous@bucket/{example_sweep.name}{query}"
        results = load(uri, where={"rule": "rmsprop"})
        assert len(results.runs) == 2
        frame = analysis.accuracy(results, flows=["central"])
        assert frame["final_distance"].tolist() == pytest.approx([0.02, 0.04])
        with pytest.raises(FileNotFoundError, match="results folder does not exist: gs://"):
            load(f"gs://anonymous@bucket/other{query}")


@pytest.mark.parametrize(
    ("uri", "limited"),
    [
        ("gs://bucket/x", "gs://bucket/x?retry_limit_seconds=20"),
        ("gs://anonymous@bucket/x?scheme=http",
         "gs://anonymous@bucket/x?scheme=http&retry_limit_seconds=20"),
        ("gs://bucket/x?retry_limit_seconds=3", "gs://bucket/x?retry_limit_seconds=3"),
        ("s3://bucket/x", "s3://bucket/x"),
    ],
)  # fmt: skip
def test_google_uris_get_a_time_limit(uri: str, limited: str) -> None:
    assert with_time_limit(uri) == limited


@pytest.mark.parametrize(
    "uri",
    [
        "gs://anonymous@bucket/x?scheme=http&endpoint_override=127.0.0.1:9&retry_limit_seconds=1",
        "gs://bucket/x?scheme=http&endpoint_override=127.0.0.1:9&retry_limit_seconds=1",
        "s3://bucket/x?scheme=http&endpoint_override=127.0.0.1:9&region=us-east-1",
    ],
)
def test_a_store_out_of_reach_is_one_line_and_soon(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # No credentials of whoever runs the tests, and no search for any on the network.
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    start = time.monotonic()
    assert main([uri]) == 2
    assert time.monotonic() - start < 30
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: cannot open {uri}: ")
    assert printed.err.count("\n") == 1
    assert "error_info" not in printed.err
    assert printed.out == ""


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://", "s3:// names no folder"),
        ("gs://", "gs:// names no folder"),
        ("colour://x/y", "cannot open colour://x/y: Unrecognized filesystem"),
    ],
)
def test_bad_uris(uri: str, message: str) -> None:
    with pytest.raises(ResultsError, match=message):
        load(uri)


def test_a_folder_that_may_not_be_listed(
    example_sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("AWS Error ACCESS_DENIED during ListObjectsV2\nrequest id 7")

    monkeypatch.setattr("analysis.read.loading.find_sweeps", refuse)
    assert main([str(example_sweep)]) == 2
    error = capsys.readouterr().err
    assert (
        error
        == f"error: cannot list {example_sweep}: AWS Error ACCESS_DENIED during ListObjectsV2\n"
    )
