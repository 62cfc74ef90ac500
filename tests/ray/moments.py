"""Moments at which a run's process is killed; known to tests and workers alike."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Moment:
    """When a run's process is killed.

    Attributes:
        kind: "change" of storage; or in the middle of "computing" a chunk, of an "orbax" save.
        number: of the change, chunk or save, counted from the run's start.
        delay_s: from the beginning of the chunk or save.
    """

    kind: str
    number: int
    delay_s: float = 0.0
