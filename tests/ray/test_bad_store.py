"""An object store that is slow, refuses requests now and then, or stays away."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cflows_ray.store import Results, Storage, StorageError, fold, folding
from cflows_ray.sweep.run_config import RunConfig
from cflows_ray.sweep.session import RunSession
from tests.ray.bad_store import BadStore
from tests.store.storage_contract import check_storage
from tests.sweep.fake_run import build_fake
from tests.sweep.tables import assert_same_tables, download

# The server is started by its own library, with settings that it warns about itself.
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]
RUNS = tuple(
    RunConfig(workload="saddle_2d", rule="gradient_descent", lr=lr, steps=12)
    for lr in (0.1, 0.2, 0.3, 13.0)
)


@pytest.fixture
def bad_store(bucket: str) -> Iterator[tuple[BadStore, str]]:
    """Return a proxy that fails one request in twelve, and the URI that leads through it."""
    match = re.search(r"endpoint_override=([\d.]+):(\d+)", bucket)
    assert match is not None
    store = BadStore(match[1], int(match[2]), latency_s=0.005, error_share=1 / 12)
    yield store, bucket.replace(f"{match[1]}:{match[2]}", store.address)
    store.close()


def carry_out(storage: Storage, run: RunConfig, tries: int = 1) -> None:
    """Carry out a run, taking it up again as Tune does after an error of storage."""
    for last in [False] * (tries - 1) + [True]:
        try:
            session = RunSession(run, sweep="s", storage=storage, chunk_steps=6, build=build_fake)
            while session.advance().status == "running":
                pass
        except StorageError as error:
            if last or error.lasting:
                raise
        else:
            return


def test_late_answers_and_errors_lose_nothing(
    bad_store: tuple[BadStore, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs, folding, forgetting, folding again: the same tables as on a healthy disk."""
    monkeypatch.setattr(folding, "RUNS_A_PART", 3)
    monkeypatch.setattr(folding, "FEW", 0)
    store, uri = bad_store
    check_storage(Storage(uri, "contract"))
    storage, local = Storage(uri, "bad"), Storage(str(tmp_path / "local"))
    for run in RUNS:
        carry_out(local, run)
        carry_out(storage, run, tries=5)
    assert_same_tables(tmp_path / "local", download(storage, tmp_path / "single"))
    fold(storage, at_end=True)
    assert_same_tables(tmp_path / "local", download(storage, tmp_path / "folded"))
    Results(storage).forget_runs([RUNS[0].run_id])
    carry_out(storage, RUNS[0], tries=5)
    fold(storage, at_end=True)
    assert_same_tables(tmp_path / "local", download(storage, tmp_path / "again"))
    assert store.errors > 20
    assert store.requests < 20 * store.errors  # retries are bounded


def test_a_store_that_stays_away_ends_in_one_line(bad_store: tuple[BadStore, str]) -> None:
    """Within a time in which a person still waits, and nothing of what was there is damaged."""
    store, uri = bad_store
    storage = Storage(uri, "away")
    carry_out(storage, RUNS[0], tries=5)
    store.away.set()
    begin, before = time.monotonic(), store.requests
    with pytest.raises(StorageError, match=r"cannot [\w ]+ s3://bucket/results/away/") as info:
        carry_out(storage, RUNS[1])
    assert time.monotonic() - begin < 120
    assert store.requests - before < 50
    assert "\n" not in str(info.value)
    store.away.clear()
    assert set(Results(storage).finished()) == {RUNS[0].run_id}
    carry_out(storage, RUNS[1], tries=5)
    assert set(Results(storage).finished()) == {run.run_id for run in RUNS[:2]}
