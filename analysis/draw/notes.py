"""What a line of a figure shows beside its places: whose runs its points are, and its band.

Matplotlib draws these and forgets them; a chart that says values on hover needs them again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray


class Notes(NamedTuple):
    """What is known of a line's points, one entry a point; None where nothing is."""

    runs: tuple[str, ...] | None = None
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None


_NOTES: WeakKeyDictionary[Line2D, Notes] = WeakKeyDictionary()  # live as long as their figures


def note_runs(line: Line2D, runs: Iterable[Any]) -> None:
    """Note which run each point of a line is of."""
    _NOTES[line] = notes_of(line)._replace(runs=tuple(map(str, runs)))


def note_band(line: Line2D, low: ArrayLike, high: ArrayLike) -> None:
    """Note the lower and upper limit at each point of a line; NaN where there is none."""
    ends = [np.asarray(end, dtype=np.float64) for end in (low, high)]
    _NOTES[line] = notes_of(line)._replace(low=ends[0], high=ends[1])


def notes_of(line: Line2D) -> Notes:
    """Return what was noted of a line.

    >>> line = Line2D([1, 2], [3, 4])
    >>> note_runs(line, ["a", "b"])
    >>> notes_of(line).runs, notes_of(line).low
    (('a', 'b'), None)
    """
    return _NOTES.get(line, Notes())
