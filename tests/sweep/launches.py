"""Launching a study in this process, as its file does."""

from __future__ import annotations

import pytest

from cflows_ray.sweep import SweepConfig, main


def stopped(sweep: SweepConfig, *arguments: str) -> int:
    """Launch a sweep with these arguments; return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(sweep, list(arguments))
    return int(stop.value.code or 0)
