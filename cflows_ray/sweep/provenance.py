"""Where numbers come from, besides their configuration: versions, device, commit."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

PACKAGES = ("cflows-ray", "jax", "jaxlib", "numpy", "flax", "optax", "ray", "orbax-checkpoint")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def device() -> str:
    """Return kind of the device that JAX computes on."""
    import jax

    first = jax.devices()[0]
    return f"{first.platform}: {first.device_kind}"


def commit() -> str | None:
    """Return the commit of this package's checkout, marked if it was changed; None outside git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10
        )
        if head.returncode or not _is_ours(git):
            return None
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("-changed" if changed.stdout.strip() else "")


def _is_ours(git: list[str]) -> bool:
    """Whether the git checkout around this file tracks it (not: a venv inside another project)."""
    found = subprocess.run(
        [*git, "ls-files", "--error-unmatch", str(Path(__file__))], capture_output=True, timeout=10
    )
    return found.returncode == 0
