"""Processes that run side by side, one a file: the optimizer itself and what claims to predict it.

Hands out `FLOWS` (the registry), `Settings` and `DTYPES` (of runs) without loading JAX; and what a
process is (`Process`, `Step`, `Reference`, ..., see `process.py`) with `DISCRETE`, the optimizer,
when used. A further flow is one file with a `Process`, and one line in `registry.py`; from outside
the package, an entry point of the group `cflows_ray.flows` or `FLOWS.register`.
"""

from typing import TYPE_CHECKING

from cflows_ray.flows.registry import FLOWS, check_defined, steps_columns
from cflows_ray.flows.settings import DTYPES, Settings, check_flows
from cflows_ray.lazy import lazy_names

if TYPE_CHECKING:
    from cflows_ray.flows.discrete import DISCRETE
    from cflows_ray.flows.process import (
        Ask,
        Counts,
        FlowContext,
        FlowOptions,
        Listed,
        Oscillation,
        Process,
        Reference,
        Start,
        Step,
        Tracked,
        grow,
    )

_PROCESS = (
    "Ask", "Counts", "FlowContext", "FlowOptions", "Listed", "Oscillation", "Process", "Reference",
    "Start", "Step", "Tracked", "grow",
)  # fmt: skip
__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(_PROCESS, "cflows_ray.flows.process"),
        "DISCRETE": "cflows_ray.flows.discrete",
    },
)

__all__ = [
    "DISCRETE",
    "DTYPES",
    "FLOWS",
    "Ask",
    "Counts",
    "FlowContext",
    "FlowOptions",
    "Listed",
    "Oscillation",
    "Process",
    "Reference",
    "Settings",
    "Start",
    "Step",
    "Tracked",
    "check_defined",
    "check_flows",
    "grow",
    "steps_columns",
]
