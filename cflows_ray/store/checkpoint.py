"""Checkpoints of runs on any storage; the only importer of Orbax.

Orbax writes the arrays to a local folder, which goes to storage as one uncompressed zip file
together with the facts about the run that are not arrays:

    <sweep>/_checkpoints/<run_id>/step-<step>.zip

One file appears at once or not at all on every filesystem, and the zip's directory (at its end)
and checksums tell a truncated or damaged one. The last `KEEP` are kept; a damaged one is passed
over for the one before.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cflows_ray.store.storage import Storage

KEEP = 2
FOLDER = "_checkpoints"
NAME = re.compile(r"step-(\d+)\.zip")


class CheckpointDamaged(RuntimeError):
    """A checkpoint can't be used: truncated, damaged or of other types than were saved."""


@dataclass(frozen=True)
class Checkpoint:
    """A run's state at a step.

    Attributes:
        step: optimizer steps done.
        arrays: the state, flat, by name.
        facts: JSON values that go with it.
    """

    step: int
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run.

    Example:
        >>> import tempfile
        >>> checkpoints = Checkpoints(Storage(tempfile.mkdtemp()), "a5a0987c223efba4")
        >>> checkpoints.save(Checkpoint(10, {"w": np.arange(3.0)}, {"wall_s": 1.5}))
        >>> checkpoints.latest()[0].arrays["w"]
        array([0., 1., 2.])
    """

    def __init__(self, storage: Storage, run_id: str) -> None:
        self._storage = storage
        self._folder = f"{FOLDER}/{run_id}"

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint and delete all but the last `KEEP`."""
        name = f"step-{checkpoint.step:08d}.zip"
        self._storage.write(f"{self._folder}/{name}", _to_zip(checkpoint))
        for old in self.names()[:-KEEP]:
            self._storage.delete(f"{self._folder}/{old}")

    def latest(self) -> tuple[Checkpoint | None, list[str]]:
        """Return the last usable checkpoint (None if there is none) and notes on unusable ones.

        Unusable ones are deleted, so that they do not count among the `KEEP`.
        """
        notes: list[str] = []
        for name in reversed(self.names()):
            try:
                return _from_zip(self._storage.read(f"{self._folder}/{name}")), notes
            except (CheckpointDamaged, FileNotFoundError) as error:
                notes.append(f"checkpoint {name} is unusable ({error})")
                self._storage.delete(f"{self._folder}/{name}")
        return None, notes

    def names(self) -> list[str]:
        """Names of the checkpoints, in the order of their steps."""
        names = self._storage.names(self._folder)
        return [name for name in names if NAME.fullmatch(name)]

    def forget(self) -> None:
        """Delete the checkpoints, but not the notes beside them."""
        for name in self.names():
            self._storage.delete(f"{self._folder}/{name}")

    def clear(self) -> None:
        """Delete all checkpoints of the run, and the notes beside them."""
        self._storage.delete_folder(self._folder)

    def note(self, name: str, text: str) -> None:
        """Write a short note beside the checkpoints, such as who carries out the run."""
        self._storage.write(f"{self._folder}/{name}", text.encode())

    def read_note(self, name: str) -> str | None:
        """Return a note, or None if there is none."""
        try:
            return self._storage.read(f"{self._folder}/{name}").decode()
        except FileNotFoundError:
            return None


def _to_zip(checkpoint: Checkpoint) -> bytes:
    """Return a checkpoint as the bytes of a zip file."""
    import orbax.checkpoint as ocp

    arrays = {name: np.asarray(value) for name, value in checkpoint.arrays.items()}
    # Orbax refuses arrays without elements; their shape and dtype are all there is to keep.
    full = {f"{i:06d}": a for i, a in enumerate(arrays.values()) if a.size}
    facts = {
        "step": checkpoint.step,
        "facts": checkpoint.facts,
        "arrays": [[name, a.dtype.str, list(a.shape)] for name, a in arrays.items()],
    }
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory(prefix="cflows_ray-") as folder:
        state = Path(folder, "state")
        if full:
            with ocp.StandardCheckpointer() as checkpointer:  # leaving it waits for the writer
                checkpointer.save(state, full)
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("facts.json", json.dumps(facts))
            for path in sorted(p for p in state.rglob("*") if p.is_file()):
                archive.write(path, path.relative_to(folder))
    return buffer.getvalue()


def _from_zip(data: bytes) -> Checkpoint:
    """Inverse of `_to_zip`; raises `CheckpointDamaged`."""
    import orbax.checkpoint as ocp

    try:
        with (
            tempfile.TemporaryDirectory(prefix="cflows_ray-") as folder,
            zipfile.ZipFile(io.BytesIO(data)) as archive,
        ):
            archive.extractall(folder)  # checks every file's checksum
            facts = json.loads(Path(folder, "facts.json").read_text())
            loaded: dict[str, Any] = {}
            expected = {
                f"{i:06d}": np.zeros(shape, dtype)
                for i, (_, dtype, shape) in enumerate(facts["arrays"])
                if 0 not in shape
            }
            if expected:
                with ocp.StandardCheckpointer() as checkpointer:
                    loaded = checkpointer.restore(Path(folder, "state"), expected)
    except (zipfile.BadZipFile, EOFError, ValueError, KeyError) as error:
        # Not OSError: a full local disk does not make the checkpoint bad.
        raise CheckpointDamaged(" ".join(str(error).split())) from error
    arrays = {}
    for i, (name, dtype, shape) in enumerate(facts["arrays"]):
        array = np.asarray(loaded.get(f"{i:06d}", np.zeros(shape, dtype)))
        if array.dtype != np.dtype(dtype) or array.shape != tuple(shape):
            # Orbax casts silently where JAX's 64-bit mode differs; resuming would change numbers.
            raise CheckpointDamaged(
                f"{name} was saved as {dtype}{shape}, came back as {array.dtype}{array.shape}"
            )
        arrays[name] = array
    return Checkpoint(facts["step"], arrays, facts["facts"])


def begun_runs(storage: Storage) -> Mapping[str, int]:
    """Return the steps at the last checkpoint of every run that has one."""
    found: dict[str, int] = {}
    for path in storage.names(FOLDER, recursive=True):
        run_id, _, name = path.partition("/")
        if matched := NAME.fullmatch(name):
            found[run_id] = max(found.get(run_id, 0), int(matched[1]))
    return found
