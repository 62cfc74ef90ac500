"""A cluster started the way cluster.yaml starts one, and a study submitted to it as a job.

Every node is processes of its own (`ray start`); one joins late, one is lost. Only the study's own
file is there to be copied, as `ray submit` does it. Results go to an S3-compatible store.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cflows_ray.status import sweep_status
from cflows_ray.store.storage import Storage
from cflows_ray.sweep.plan import begun_runs
from tests.ray.test_drivers import STUDY, Driver
from tests.sweep.tables import assert_same_tables, download

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.filterwarnings("ignore")]

BOOTSTRAP_LISTS = (
    *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files"),
    *("rsync_exclude", "rsync_filter"),
)
OPEN = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


class Nodes:
    """Ray nodes started from the command line, each a group of processes."""

    def __init__(self) -> None:
        self.port, self.dashboard = free_port(), free_port()
        self.folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets need short names
        self.said = os.open(f"{self.folder}/said", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._starts = 0
        self._head: subprocess.Popen[bytes] | None = None
        self._groups: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a node that stays in the foreground of a session of its own."""
        ports = {"dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port"}
        own = [f"--{name}={free_port()}" for name in sorted(ports)]
        process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *arguments, *own],
            env={**os.environ, **OPEN, **environment},
            stdout=self.said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._groups.append(process)
        return process

    def head(self, *arguments: str, **environment: str) -> None:
        """Start a head that runs no trials."""
        self._starts += 1
        self._head_arguments = (arguments, environment)
        self._head = self.start(
            *arguments,
            "--head",
            f"--port={self.port}",
            "--num-cpus=0",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={self.dashboard}",
            f"--ray-client-server-port={free_port()}",
            f"--temp-dir={self.folder}",
            **environment,
        )

    def growing_head(self) -> None:
        """Start a head that starts machines with one CPU when they are needed, up to two."""
        head_id = f"{0:056x}".replace("0", "f", 51)
        types = {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 2},
        }
        config = {
            "cluster_name": "grows",
            "max_workers": 2,
            "idle_timeout_minutes": 5,
            "provider": {
                "type": "fake_multinode",
                "gcs_address": f"127.0.0.1:{self.port}",
                "head_node_id": head_id,
            },
            "available_node_types": types,
            "head_node_type": "ray.head.default",
            # What `ray up` would fill in.
            **{key: {} for key in ("auth", "docker", "file_mounts")},
            **{key: [] for key in BOOTSTRAP_LISTS},
            "upscaling_speed": 1.0,
            "file_mounts_sync_continuously": False,
        }
        file = Path(self.folder, "autoscaling.yaml")
        file.write_text(json.dumps(config))
        self.head(
            f"--autoscaling-config={file}",
            RAY_FAKE_CLUSTER="1",
            AUTOSCALER_UPDATE_INTERVAL_S="1",
            RAY_OVERRIDE_NODE_ID_FOR_TESTING=head_id,
        )

    def worker(self) -> subprocess.Popen[bytes]:
        """Start a worker that runs one trial at a time."""
        return self.start(f"--address=127.0.0.1:{self.port}", "--num-cpus=1")

    def check(self) -> bool:
        """Return whether the head lives; start it again if not: Ray gives up after 30 busy seconds.

        Fails, with what it said, if that does not help.
        """
        if self._head is not None and self._head.poll() is not None:
            said = Path(self.folder, "said").read_text()[-2000:]
            assert self._starts < 3, f"the head ended: {said}"
            self.head(*self._head_arguments[0], **self._head_arguments[1])
            return False
        return True

    def lose(self, node: subprocess.Popen[bytes]) -> None:
        """Kill all processes of a node at once."""
        if node.poll() is None:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()

    def stop(self) -> None:
        for node in reversed(self._groups):
            self.lose(node)
        os.close(self.said)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    nodes = Nodes()
    yield nodes
    nodes.stop()


def wait_for(what: Callable[[], bool], timeout_s: float = 240) -> None:
    end = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.2)


def test_a_job_on_a_cluster_that_changes(
    undisturbed_study: Path,
    bucket: str,
    nodes: Nodes,
    tmp_path: Path,
    compile_cache: str,
) -> None:
    pytest.importorskip("aiohttp_cors", reason="jobs need ray[default]")
    from ray.job_submission import JobStatus, JobSubmissionClient

    nodes.head()
    address = f"http://127.0.0.1:{nodes.dashboard}"
    clients: list[JobSubmissionClient] = []

    def reachable() -> bool:
        if not nodes.check():
            return False
        try:
            clients.append(JobSubmissionClient(address))
            return clients[-1].list_jobs() is not None
        except Exception:
            return False

    wait_for(reachable)
    first = nodes.worker()
    wait_for(lambda: alive_cpus(nodes.port) == 1)
    only_the_file = tmp_path / "submitted"
    only_the_file.mkdir()
    shutil.copy(STUDY, only_the_file)
    job = clients[-1].submit_job(
        entrypoint=f"{sys.executable} study.py --storage '{bucket}'",
        runtime_env={
            "working_dir": str(only_the_file),
            "env_vars": {"CFLOWS_RAY_TEST_CACHE": compile_cache},
        },
    )

    def status() -> JobStatus:
        return clients[-1].get_job_status(job)

    storage = Storage(bucket, "study")
    wait_for(lambda: len(begun_runs(storage)) >= 1 or status().is_terminal())
    assert status() == JobStatus.RUNNING, clients[-1].get_job_logs(job)
    nodes.worker()
    wait_for(lambda: len(begun_runs(storage)) >= 2 or status().is_terminal())
    nodes.lose(first)
    wait_for(lambda: status().is_terminal(), timeout_s=400)
    logs = clients[-1].get_job_logs(job)
    assert status() == JobStatus.SUCCEEDED, logs
    assert "process lost" in logs
    assert "driver loaded JAX: False" in logs
    assert set(sweep_status(storage).statuses.values()) == {"finished"}
    assert_same_tables(undisturbed_study, download(storage, tmp_path / "s3"))


def test_a_cluster_that_grows_from_nothing(
    nodes: Nodes, tmp_path: Path, compile_cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No machine is there at first: refused, or started, as the launch says."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    nodes.growing_head()
    wait_for(lambda: nodes.check() and alive_cpus(nodes.port) == 0)
    arguments = ("--address", f"127.0.0.1:{nodes.port}", "--steps", "20")
    refused = Driver(tmp_path, compile_cache, *arguments)
    text = refused.end()
    assert refused.process.returncode == 2, text
    assert (
        "error: resources of a run must fit on one machine, got 1 CPU, 0 GPU; there is: 0 CPU"
        in text
    )
    grows = Driver(tmp_path, compile_cache, *arguments, "--autoscaling")
    text = grows.end()
    assert grows.process.returncode == 0, text
    assert set(sweep_status(Storage(str(grows.results))).statuses.values()) == {"finished"}


def alive_cpus(port: int) -> float:
    """Return the CPUs of a cluster, asked from another process; -1 while it can't be reached."""
    code = (
        f"import ray; ray.init(address='127.0.0.1:{port}', log_to_driver=False); "
        "print(ray.cluster_resources().get('CPU', 0))"
    )
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, env=environment)
    return float(found.stdout.strip().splitlines()[-1]) if found.returncode == 0 else -1.0
