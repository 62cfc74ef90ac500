"""The wheel, installed where nothing of the checkout is in sight, runs a sweep to its report.

The environment is new; only what we depend on is taken from the one that runs the tests, by a line
in a `.pth` file, so that nothing is downloaded. Python adds that folder *after* the new
environment's own, and does not follow the `.pth` files inside it: our package is the wheel's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import cflows_ray

ROOT = Path(__file__).parents[1]

STUDY = """
from cflows_ray.sweep import Execution, Grid, SweepConfig, main

SWEEP = SweepConfig(
    name="outside",
    grids=(Grid(workload="saddle_2d", rule="gradient_descent", lrs=(0.2,)),),
    seeds=(0,),
    steps=40,
    warmup=3,
    execution=Execution(chunk_steps=20),
)

if __name__ == "__main__":
    main(SWEEP)
"""


class Environment:
    """A new virtual environment and an empty folder to work in."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.work = folder / "work"
        self.work.mkdir()
        home = folder / "venv"
        _run([sys.executable, "-m", "venv", "--without-pip", str(home)], cwd=folder)
        self.python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
        self.packages = Path(self.run("-c", "import sysconfig as s; print(s.get_path('purelib'))"))
        (self.packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "install"]
        _run([*pip, "--quiet", "--no-deps", "--no-index", str(wheel)], cwd=folder)

    def run(self, *arguments: str) -> str:
        """Run Python in the new environment; return what it printed."""
        return _run([str(self.python), *arguments], cwd=self.work)


def _run(command: list[str], cwd: Path) -> str:
    """Run a command to its end without the checkout on Python's path; return what it printed."""
    hidden = {"PYTHONPATH", "RAY_ADDRESS", "VIRTUAL_ENV"}
    clean = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        command, cwd=cwd, env=clean, text=True, capture_output=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source distribution and, from that alone, the wheel."""
    source = tmp_path_factory.mktemp("source")
    for name in ("cflows_ray", "analysis", "sweeps"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    _run([sys.executable, "-m", "build", "--no-isolation"], cwd=source)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Install the wheel into an environment of its own."""
    return Environment(tmp_path_factory.mktemp("environment"), wheel)


@pytest.mark.slow
def test_the_wheel_carries_the_version_of_the_package(wheel: Path) -> None:
    assert wheel.name == f"cflows_ray-{cflows_ray.__version__}-py3-none-any.whl"


@pytest.mark.slow
def test_every_module_comes_with_the_wheel(environment: Environment) -> None:
    for top in ("cflows_ray", "analysis", "sweeps"):
        where = environment.run("-c", f"import {top}; print({top}.__file__)")
        assert Path(where).is_relative_to(environment.packages)
        ours, theirs = (
            {str(f.relative_to(home / top)) for f in (home / top).rglob("*.py")}
            for home in (ROOT, environment.packages)
        )
        assert theirs == ours
    assert (environment.packages / "cflows_ray" / "py.typed").exists()


@pytest.mark.slow
@pytest.mark.ray
def test_a_study_outside_the_checkout_runs_to_its_report(environment: Environment) -> None:
    (environment.work / "outside.py").write_text(STUDY)
    environment.run("outside.py")
    results = environment.work / "results" / "outside"
    assert "1 of 1" in environment.run("-m", "cflows_ray.status", "results/outside")
    assert "central" in environment.run("-m", "analysis", "results/outside")
    assert (results / "report" / "report.html").exists()
