"""Fixtures of the workload tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # so that tests can import `tiny`


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Build a workload's tiny version: `tiny(name, criterion, **options)`."""
    from tiny import tiny_options

    from cflows_ray.workloads import build_workload

    folder = tmp_path_factory.mktemp("workloads")

    def build(name: str, criterion: str = "mse", **options: Any) -> Any:
        return build_workload(name, criterion, **{**tiny_options(name, folder), **options})

    return build
