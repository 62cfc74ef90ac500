"""Where a long call stands: chunks of about a second, and a line on standard error.

The line appears once a call has taken some seconds, is rewritten in place on a terminal and
written anew every half minute elsewhere. `CFLOWS_PROGRESS=0` in the environment turns it off.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TextIO

import pandas as pd

CHUNK_S = 1.0
# A chunk is at most so many times longer than the one before: the first ones compile.
GROWTH = 4
FIRST_AFTER_S = 3.0
REWRITTEN_EVERY_S, REPEATED_EVERY_S = 0.5, 30.0


class ChunkLength:
    """Optimizer steps per chunk, so that a chunk takes about `CHUNK_S` seconds.

    Example:
        >>> length = ChunkLength()
        >>> length.steps
        1
        >>> length.took(0.01)  # seconds
        >>> length.steps
        4
    """

    def __init__(self) -> None:
        self.steps = 1

    def took(self, seconds: float) -> None:
        """Take note of how long a chunk of so many steps took."""
        fitting = self.steps * CHUNK_S / max(seconds, 1e-9)
        self.steps = max(1, int(min(fitting, GROWTH * self.steps)))


class ProgressLine:
    """A line on how far a run is; silent in short calls.

    Args:
        total: optimizer steps in all.
        stream: where it is written; by default standard error.
        clock: seconds.
    """

    def __init__(
        self,
        total: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._total, self._clock = total, clock
        self._stream = sys.stderr if stream is None else stream
        self._in_place = self._stream.isatty()
        self._begin = clock()
        self._next = self._begin + FIRST_AFTER_S
        self._written = 0

    def show(self, step: int, rows: pd.DataFrame) -> None:
        """Write where the run is, if it is time to: step, seconds, the optimizer's last row."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + (REWRITTEN_EVERY_S if self._in_place else REPEATED_EVERY_S)
        text = f"step {step:,} of {self._total:,}, {now - self._begin:.0f} s"
        optimizer = rows[rows["process"] == "discrete"]
        if len(optimizer):
            last = optimizer.iloc[-1]
            words = {"loss": last["train_loss"], "sharpness": last["effective_sharpness"]}
            text += "".join(f", {word} {x:.4g}" for word, x in words.items() if pd.notna(x))
        if self._in_place:
            self._stream.write("\r" + text.ljust(self._written))
            self._written = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def clear(self) -> None:
        """Take the line away from a terminal."""
        if self._written:
            self._stream.write("\r" + " " * self._written + "\r")
            self._stream.flush()
            self._written = 0


def is_wanted(progress: bool) -> bool:
    """Say whether a line is wanted: asked for, and not turned off in the environment."""
    return progress and os.environ.get("CFLOWS_PROGRESS", "1") != "0"
