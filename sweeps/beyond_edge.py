"""What studies beyond the paper's share: a workload at `cpu` scale just beyond the edge."""

from collections.abc import Mapping
from typing import Any

from cflows_ray.sweep import AroundEdge, Grid
from cflows_ray.workloads import full_options


def beyond_edge(workload: str, rule: str, steps: int, more: Mapping[str, Any]) -> Grid:
    """Return a grid at 1.25 times the rate at which a pilot is at the edge in half of the steps."""
    return Grid(
        workload,
        rule,
        AroundEdge(factors=(1.25,), steps=steps // 2),
        workload_options=full_options(workload, {"scale": "cpu"}),
        more={**more, "steps": steps},
    )
