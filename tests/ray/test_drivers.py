"""Drivers as people launch them: killed, stopped by Ctrl-C, two at once."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sweep.tables import assert_same_tables, read_tables

pytestmark = [pytest.mark.ray, pytest.mark.faults]
STUDY = Path(__file__).parent / "study.py"


class Driver:
    """A study launched as a command, in a folder that holds nothing but its file."""

    def __init__(self, folder: Path, cache: str, *arguments: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(STUDY, folder / "study.py")
        self.results = folder / "results" / "study"
        self.process = subprocess.Popen(
            [sys.executable, "study.py", *arguments],
            cwd=folder,
            env={**os.environ, "CFLOWS_RAY_TEST_CACHE": cache},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a group, as in a terminal
        )

    def wait_for(self, what: Callable[[], bool], timeout_s: float = 240) -> None:
        """Wait for something to happen while the driver is at work."""
        end = time.monotonic() + timeout_s
        while not what():
            assert self.process.poll() is None, f"the driver ended: {self.end()}"
            assert time.monotonic() < end, "nothing happened"
            time.sleep(0.05)

    def checkpoints(self) -> int:
        """Return the number of checkpoints that lie on storage."""
        return len(list(self.results.glob("_checkpoints/*/step-*.zip")))

    def begun(self) -> set[str]:
        """Return the ids of runs that a process has taken."""
        return {file.parent.name for file in self.results.glob("_checkpoints/*/owner")}

    def end(self) -> str:
        """Wait for the end; return what the driver said."""
        text, _ = self.process.communicate(timeout=400)
        return str(text)


@pytest.fixture
def drivers(tmp_path: Path, compile_cache: str) -> Iterator[Callable[..., Driver]]:
    """Return a function that launches the study; ends what is left at the end."""
    launched: list[Driver] = []

    def launch(*arguments: str) -> Driver:
        launched.append(Driver(tmp_path, compile_cache, *arguments))
        return launched[-1]

    yield launch
    for driver in launched:
        if driver.process.poll() is None:
            driver.process.kill()
            driver.process.communicate()


def test_a_killed_driver_and_a_second_one(
    undisturbed_study: Path, drivers: Callable[..., Driver]
) -> None:
    """A second driver is refused while the first lives; killed, the first is continued exactly."""
    first = drivers()
    first.wait_for(lambda: first.checkpoints() >= 3)
    second = drivers()
    text = second.end()
    assert second.process.returncode == 2
    assert "error: another driver works on" in text
    assert f"process {first.process.pid} on" in text
    assert text.count("error") == 1
    assert first.process.poll() is None
    first.process.kill()
    first.process.communicate()
    again = drivers()
    text = again.end()
    assert again.process.returncode == 0, text
    assert "to resume" in text
    assert "resumes at step" in text
    assert "driver loaded JAX: False" in text
    assert f"results: {again.results}" in text
    assert "analyse: python -m analysis results/study" in text
    assert_same_tables(undisturbed_study, again.results)


def test_two_drivers_at_the_same_moment(drivers: Callable[..., Driver]) -> None:
    """Launched at once, one works and the other is refused."""
    both = [drivers("--only", "gradient_descent", "--steps", "20") for _ in range(2)]
    texts = [driver.end() for driver in both]
    codes = [driver.process.returncode for driver in both]
    assert sorted(codes) == [0, 2], texts
    refused = texts[codes.index(2)]
    assert "error: another driver works on" in refused
    runs = read_tables(both[0].results)["runs"].to_pylist()
    assert [run["status"] for run in runs] == ["finished"] * 4


def test_ctrl_c_saves_and_says_how_to_go_on(
    undisturbed_study: Path, drivers: Callable[..., Driver]
) -> None:
    """The running chunks finish and are saved, however rare checkpoints are; nothing else begins.

    So early that no chunk is done: whatever is on storage afterwards comes from the stop.
    """
    first = drivers("--checkpoint-every", "1000")
    first.wait_for(lambda: len(first.begun()) >= 1)
    os.killpg(first.process.pid, signal.SIGINT)  # a terminal sends it to all processes
    assert first.checkpoints() == 0
    text = first.end()
    assert first.process.returncode == 130, text
    assert "stopping: running chunks finish and are saved" in text
    assert "runs are not done; go on with: python study.py --checkpoint-every 1000" in text
    assert "Traceback" not in text
    assert 1 <= len(first.begun()) <= 2
    assert first.checkpoints() == len(first.begun())
    assert len(read_tables(first.results)["runs"]) == 0
    status = subprocess.run(
        [sys.executable, "-m", "cflows_ray.status", str(first.results)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "no driver is at work" in status.stdout
    assert re.search(r"interrupted, step [1-9]\d* of 300", status.stdout)
    again = drivers()
    text = again.end()
    assert again.process.returncode == 0, text
    assert "resumes at step" in text
    assert_same_tables(undisturbed_study, again.results)


def test_nothing_to_do_is_quick(undisturbed_study: Path, drivers: Callable[..., Driver]) -> None:
    """All done: says so without starting Ray."""
    driver = drivers("--storage", str(undisturbed_study.parent))
    text = driver.end()
    assert driver.process.returncode == 0
    assert "4 runs: 4 finished before" in text
    assert "starting Ray" not in text
