"""Setting up processes: a worker's before it imports JAX, and where a driver works."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path


def prepare_process(*, gpus: float, cpus: float, compile_cache: str | None) -> None:
    """Set the environment that JAX reads when it starts; must come before JAX is imported.

    Args:
        gpus: GPUs that this process holds; a fraction shares the memory as it shares the GPU.
        cpus: CPU cores that it holds.
        compile_cache: folder for compiled programs; None for the user's cache, "" for none.
    """
    if not gpus:
        os.environ["JAX_PLATFORMS"] = "cpu"  # Ray leaves GPUs visible to those who asked for none
    elif gpus < 1:
        os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 * gpus:.3f}"
    threads = max(1, int(cpus))
    # Actors that each use all cores slow one another down by factors; and a fixed number of
    # threads keeps sums in the same order on every machine.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"):
        os.environ[name] = str(threads)
    flags = os.environ.get("XLA_FLAGS", "")
    if threads == 1 and "xla_cpu_multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    if compile_cache is None:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        compile_cache = str(Path(base).expanduser() / "cflows_ray" / f"jax-{machine()}")
    if compile_cache:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", compile_cache)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def machine() -> str:
    """Name the kind of CPU: programs compiled for one must not be used on another."""
    text = platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        text += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@contextlib.contextmanager
def working_in(folder: str) -> Iterator[None]:
    """Work in a folder of our own: Ray may delete a job's working directory under its feet.

    Seen where several nodes share a machine and with it the folder of the session.
    """
    try:
        before = os.getcwd()
    except FileNotFoundError:
        before = "/"
    os.chdir(folder)
    try:
        yield
    finally:
        try:
            os.chdir(before)
        except FileNotFoundError:
            os.chdir("/")
