"""Settings for all tests: one CPU device, one thread per linear-algebra call."""

import gc
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

# before NumPy and JAX are imported: on a busy machine, threads in tiny solves cost 100 times more
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("CFLOWS_PROGRESS", "0")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep a file's tests, which share fixtures and programs, in one process, and those of Ray too.

    Of pytest-xdist, where tests run in several processes (`make test`).
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "ray" if file.startswith("tests/ray/") else file

    return ByFile(config, log)


@pytest.fixture(scope="module", autouse=True)
def forget_programs() -> Iterator[None]:
    """Let go of compiled programs after each file.

    Each maps several pieces of memory; Linux allows a process 65,530 of them, and a compiler that
    gets no more ends the process.
    """
    yield
    if "jax" in sys.modules:
        import jax

        if "cflows_ray.paired.run" in sys.modules:
            import cflows_ray

            cflows_ray.forget_programs()
        jax.clear_caches()
        gc.collect()
