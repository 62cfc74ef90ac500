"""Where numbers come from, besides their configuration: versions, device, commit."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

CHANGED = "-changed"
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
    return head.stdout.strip() + (CHANGED if changed.stdout.strip() else "")


@functools.cache
def sources() -> str:
    """Return a hash of the package's files, as they were when this process first asked."""
    return hash_of(Path(__file__).parents[1])


def hash_of(folder: Path) -> str:
    """Return a hash of the names and contents of all Python files below a folder."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        code = file.read_bytes()
        digest.update(f"{file.relative_to(folder).as_posix()} {len(code)};".encode() + code)
    return digest.hexdigest()[:16]


def commit_here(commit: str | None, launched: str | None) -> str | None:
    """Return the commit of a launch, marked as changed if this process has other `sources`.

    A process that starts later, after a fault say, imports what the checkout holds by then.

    Args:
        commit: as the launch found it; None outside git.
        launched: the launch's `sources`.
    """
    if commit is None or commit.endswith(CHANGED) or launched == sources():
        return commit
    return commit + CHANGED


def _is_ours(git: list[str]) -> bool:
    """Whether the git checkout around this file tracks it (not: a venv inside another project)."""
    found = subprocess.run(
        [*git, "ls-files", "--error-unmatch", str(Path(__file__))], capture_output=True, timeout=10
    )
    return found.returncode == 0
