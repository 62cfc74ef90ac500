"""The registry of processes beside the optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cflows_ray.checks import require
from cflows_ray.registry import Registry
from cflows_ray.rules import UpdateRule
from cflows_ray.schema import Column, columns

FLOWS: Registry[Any] = Registry(
    "flows",
    "cflows_ray.flows",
    {
        "midpoint": "cflows_ray.flows.midpoint:MIDPOINT",
        "stable": "cflows_ray.flows.stable:STABLE",
        "central": "cflows_ray.flows.central:CENTRAL",
        # further ones below, in the order in which they came: it is part of run ids
        "alternating": "cflows_ray.flows.alternating:ALTERNATING",
        "edge": "cflows_ray.flows.alternating:EDGE",
        "rod": "cflows_ray.flows.rod:ROD",
        "covariance": "cflows_ray.flows.covariance_flow:COVARIANCE",
        "corrected": "cflows_ray.flows.corrected:CORRECTED",
        "central_unforced": "cflows_ray.flows.unforced:UNFORCED",
        "persistence": "cflows_ray.flows.persistence:PERSISTENCE",
    },
)


def steps_columns() -> tuple[Column, ...]:
    """Return the columns of the `steps` table: the common ones, then those of single processes.

    All registered processes, whichever a run has: the files of a sweep share one schema. Loads JAX.
    """
    own = {column.name: column for name in FLOWS for column in FLOWS[name].columns}
    return columns("steps", own.values())


def check_defined(flows: Iterable[str], rule: UpdateRule) -> None:
    """Raise `ConfigError` for a flow that is not defined for a rule. Loads JAX."""
    for name in flows:
        needed = FLOWS[name].needs(rule)
        require(needed is None, "flows", f"defined for the rule ({name} needs {needed})", rule)
