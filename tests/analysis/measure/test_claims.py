"""Targets have words and claims wherever the tables have a column for them."""

from __future__ import annotations

from analysis.measure import CLAIMS, TARGETS
from analysis.measure.claims import TARGET_PREFIX, WINDOW_TARGETS
from cflows_ray.schema import TARGET_WINDOWS, column_names


def test_every_distance_of_the_tables_is_a_target() -> None:
    distances = [n for n in column_names("steps") if n.startswith(TARGET_PREFIX)]
    assert [TARGET_PREFIX + name for name in TARGETS] == distances
    assert len(WINDOW_TARGETS) == len(TARGET_WINDOWS)
    assert TARGETS["mean_50"] == "mean of 50"
    assert TARGETS["mean_loop"] == "mean over a loop"


def test_claims_are_of_targets() -> None:
    claimed = {target for claim in CLAIMS.values() for target in claim.targets}
    assert claimed <= set(TARGETS)
    assert set(CLAIMS["central"].targets) == {"midpoint", "mean_20", "mean_50", "mean_loop"}
