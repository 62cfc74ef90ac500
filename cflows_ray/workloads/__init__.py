"""Workloads: a network on a data set under a criterion, by name; one data set or network a file.

Hands out the registries `WORKLOADS`, `DATA` and `NETWORKS`, and the `CRITERIA`; of a name and
options, `check_workload`, `full_options`, `fetch_data`, `check_data`, `data_fingerprint`,
`describe`, `resolve_paths` and `build_workload`; and, for a workload of one's own, `Recipe` (any
problem), `Supervised` (joins a `DataSource` and a `NetworkKind`) with the types they are made of.
Nothing loads JAX before a workload is built.
"""

from cflows_ray.workloads.base import (
    DataSet,
    DataSource,
    DataUnavailable,
    Network,
    NetworkKind,
    Recipe,
    Workload,
)
from cflows_ray.workloads.criteria import CRITERIA
from cflows_ray.workloads.registry import (
    WORKLOADS,
    build_workload,
    check_data,
    check_workload,
    data_fingerprint,
    describe,
    fetch_data,
    full_options,
    resolve_paths,
)
from cflows_ray.workloads.supervised import DATA, NETWORKS, Supervised

__all__ = [
    "CRITERIA",
    "DATA",
    "NETWORKS",
    "WORKLOADS",
    "DataSet",
    "DataSource",
    "DataUnavailable",
    "Network",
    "NetworkKind",
    "Recipe",
    "Supervised",
    "Workload",
    "build_workload",
    "check_data",
    "check_workload",
    "data_fingerprint",
    "describe",
    "fetch_data",
    "full_options",
    "resolve_paths",
]
