"""Workloads: a network on a data set under a criterion, by name.

`build_workload` makes one; `check_workload` only validates the request, without loading JAX or any
data. `WORKLOADS` is the registry; its entries import their data set and network when built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cflows_ray.workloads.data.cifar10_download import DataUnavailable
from cflows_ray.workloads.registry import (
    WORKLOADS,
    Entry,
    build_workload,
    check_workload,
    fetch_data,
    full_options,
)

if TYPE_CHECKING:
    from cflows_ray.workloads.base import Workload

__all__ = [
    "WORKLOADS",
    "DataUnavailable",
    "Entry",
    "Workload",
    "build_workload",
    "check_workload",
    "fetch_data",
    "full_options",
]


def __getattr__(name: str) -> Any:
    """Load `Workload` on first use: its module imports JAX."""
    if name == "Workload":
        from cflows_ray.workloads.base import Workload

        return Workload
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
