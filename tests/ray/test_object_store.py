"""Results and checkpoints on an S3-compatible store that runs on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cflows_ray.status import sweep_status
from cflows_ray.store import lock as lock_module
from cflows_ray.store.lock import SweepLock, SweepLocked
from cflows_ray.store.storage import Storage
from cflows_ray.sweep.config import SweepConfig
from cflows_ray.sweep.plan import begun_runs
from cflows_ray.sweep.run_config import RunConfig
from cflows_ray.sweep.session import RunSession
from tests.ray.conftest import KEYS, Launched
from tests.ray.moments import Moment
from tests.store.storage_contract import check_storage
from tests.sweep.fake_run import build_fake
from tests.sweep.tables import assert_same_tables, download

# Started by their own libraries, with settings that they warn about themselves.
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]
RUN = RunConfig(workload="saddle_2d", rule="gradient_descent", lr=0.2, steps=25)


def test_a_bucket_as_storage(bucket: str) -> None:
    check_storage(Storage(bucket, "basics"))


def test_a_run_that_dies_and_goes_on(bucket: str, tmp_path: Path) -> None:
    def session(storage: Storage) -> RunSession:
        return RunSession(RUN, sweep="s", storage=storage, chunk_steps=10, build=build_fake)

    local = session(Storage(str(tmp_path / "local")))
    while local.advance().status == "running":
        pass
    storage = Storage(bucket, "dies")
    session(storage).advance()
    assert begun_runs(storage) == {RUN.run_id: 10}
    again = session(storage)
    assert again.notes == ["resumes at step 10"]
    while again.advance().status == "running":
        pass
    assert_same_tables(tmp_path / "local", download(storage, tmp_path / "s3"))
    assert not [name for name in storage.names("_checkpoints", recursive=True) if name]


def test_lock_on_s3(bucket: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(lock_module, "SETTLE_S", 0.1)
    storage = Storage(bucket, "lock")
    first = SweepLock(storage)
    first.acquire()
    with pytest.raises(SweepLocked, match="another driver works on s3://bucket/results/lock"):
        SweepLock(storage).acquire()
    first.release()
    second = SweepLock(storage)
    second.acquire()
    second.release()


def test_a_sweep_on_s3(
    bucket: str,
    launch: Callable[..., Launched],
    small_sweep: Callable[..., SweepConfig],
    tmp_path: Path,
) -> None:
    """The same tables as on a folder, with an actor killed on the way."""
    from tests.ray.faults import killed_trial, plain_trial

    local = launch(small_sweep(lrs=(0.1,)), plain_trial(build_fake)).folder
    sweep = small_sweep(lrs=(0.1,), storage=bucket)
    trial = killed_trial({sweep.runs[0].run_id: Moment("change", 9)}, tmp_path, build_fake)
    launch(sweep, with_keys(trial))
    assert (tmp_path / sweep.runs[0].run_id).exists()
    storage = Storage(bucket, sweep.name)
    assert_same_tables(local, download(storage, tmp_path / "s3"))
    assert set(sweep_status(storage).statuses.values()) == {"finished"}


def with_keys(trial: Any) -> Any:
    """Give actors the credentials that this process has, for they were started before."""

    class KeyedTrial(trial):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            import os

            os.environ.update(KEYS)
            super().setup(config)

    return KeyedTrial
