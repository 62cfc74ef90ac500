"""One small Ray cluster for all tests that need one, and helpers to launch sweeps on it."""

from __future__ import annotations

import dataclasses
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cflows_ray.store.storage import Storage
from cflows_ray.sweep.config import Grid, SweepConfig
from cflows_ray.sweep.display import Display
from cflows_ray.sweep.execution_settings import Execution
from cflows_ray.sweep.plan import make_plan

# Credentials that a local object store takes without looking.
KEYS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Start a private local cluster with two CPUs."""
    names = ("tests.sweep.fake_run", "tests.ray.faults", "tests.ray.moments")
    modules = [importlib.import_module(name) for name in names]  # before Ray: sets its environment

    import ray  # isort: skip

    for module in modules:
        ray.cloudpickle.register_pickle_by_value(module)  # workers can't import the tests
    with warnings.catch_warnings():
        # JAX, if an earlier test has loaded it, warns of every fork
        warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=100 * 2**20,
            log_to_driver=False,
            logging_level="error",
        )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def compile_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folder for compiled programs that all sweeps of these tests share."""
    return str(tmp_path_factory.mktemp("compiled"))


class Launched:
    """What a launch did and said."""

    def __init__(self, outcome: Any, text: str, folder: Path) -> None:
        self.outcome = outcome
        self.text = text
        self.folder = folder


def launch_sweep(sweep: SweepConfig, trainable: Any = None, retry_failed: bool = False) -> Launched:
    """Launch a sweep on the shared cluster, as the command line does."""
    from cflows_ray.sweep.tune import PairedTrial, run_sweep

    storage = Storage(sweep.execution.storage, sweep.name)
    plan = make_plan(sweep, storage, retry_failed)
    console = Console(file=io.StringIO(), width=200)
    ended = {run_id: row["status"] for run_id, row in plan.ended.items()}
    display = Display(sweep.name, sweep.runs, ended, console)
    outcome = run_sweep(sweep, plan, storage, display, trainable=trainable or PairedTrial)
    assert isinstance(console.file, io.StringIO)
    return Launched(outcome, console.file.getvalue(), Path(storage.location))


@pytest.fixture
def launch(cluster: None) -> Callable[..., Launched]:  # noqa: ARG001
    """Return a function that launches a sweep."""
    return launch_sweep


@pytest.fixture(scope="session")
def undisturbed_study(
    cluster: None,  # noqa: ARG001
    compile_cache: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Return the tables of `study.py` as an undisturbed launch makes them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CFLOWS_RAY_TEST_CACHE", compile_cache)
        from tests.ray.study import SWEEP
    folder = tmp_path_factory.mktemp("undisturbed")
    execution = dataclasses.replace(SWEEP.execution, storage=str(folder))
    return launch_sweep(dataclasses.replace(SWEEP, execution=execution)).folder


@pytest.fixture
def small_sweep(tmp_path: Path, compile_cache: str) -> Callable[..., SweepConfig]:
    """Return a function that makes a sweep of the two-parameter workload."""

    def make(
        lrs: tuple[float, ...] = (0.2, 0.19),
        seeds: tuple[int, ...] = (0, 1),
        storage: str | None = None,
        name: str = "small",
        **settings: Any,
    ) -> SweepConfig:
        given = {k: settings.pop(k) for k in ("steps", "warmup", "flows") if k in settings}
        execution = {"chunk_steps": 10, "compile_cache": compile_cache, **settings}
        return SweepConfig(
            name=name,
            grids=(Grid(workload="saddle_2d", rule="gradient_descent", lrs=lrs),),
            seeds=seeds,
            execution=Execution(storage=storage or str(tmp_path / "results"), **execution),
            **{"steps": 45, "warmup": 3, **given},
        )

    return make


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """Return the URI of a bucket on a local server; credentials are in the environment."""
    server_module = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=url, region_name="us-east-1").create_bucket(Bucket="bucket")
        yield f"s3://bucket/results?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    server.stop()
