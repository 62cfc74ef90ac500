"""Targets that flows may be near to, and which the authors of each flow claim that it follows."""

from __future__ import annotations

from typing import NamedTuple

from cflows_ray.schema import TARGET_WINDOWS

TARGET_PREFIX = "distance_to_"

WINDOW_TARGETS = tuple(f"mean_{window}" for window in TARGET_WINDOWS)
"""Targets with a value in a window's last row only, not in those between."""

TARGETS = {"discrete": "iterates", "midpoint": "midpoints", "half": "half-way points"} | {
    f"mean_{window}": f"mean of {window}" if window.isdigit() else f"mean over a {window}"
    for window in TARGET_WINDOWS
}
"""Targets in words, in the order of tables."""


class Claim(NamedTuple):
    """A flow's claim: in words, and the targets it is meant to follow, of `distance_to_...`.

    >>> CLAIMS["rod"].targets
    ('half',)
    """

    words: str
    targets: tuple[str, ...]


NO_CLAIM = Claim("", ())
# The mean of 5 steps, of which the oscillation has a period of two, is no average over it.
_AVERAGES = ("midpoint", *(target for target in WINDOW_TARGETS if target != "mean_5"))
_ITERATES = ("discrete", "midpoint")

CLAIMS: dict[str, Claim] = {
    "central": Claim(
        "the average over the oscillation, midpoints, and the oscillation's covariance", _AVERAGES
    ),
    "central_unforced": Claim(
        "as the central flow, without the oscillation's force on the weights", _AVERAGES
    ),
    "stable": Claim("the path without any oscillation", ("discrete",)),
    "corrected": Claim(
        "the path without oscillation, corrected for the size of the step", ("discrete",)
    ),
    "persistence": Claim("that nothing changes: what any forecast must beat", ()),
    "alternating": Claim(
        "both sides of the oscillation (iterates) and the midpoints between them", _ITERATES
    ),
    "edge": Claim("as the alternating flow, to first order in the step", _ITERATES),
    "rod": Claim("half-way points of two iterates, and the oscillation's covariance", ("half",)),
    "covariance": Claim(
        "the average over the oscillation, with a covariance that takes time to follow", _AVERAGES
    ),
}
"""Claims by flow; one that is not here claims nothing that is known."""
