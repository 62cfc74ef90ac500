"""Processes that run side by side, one a file: the optimizer itself and what claims to predict it.

`discrete` always runs and is what the others are measured against. A further flow is one file with
a `Flow`, and one line in `FLOWS`.
"""

from cflows_ray.flows import discrete
from cflows_ray.flows.base import (
    ABSENT,
    DIVERGED,
    OK,
    STOPPED,
    Counts,
    Flow,
    FlowContext,
    FlowOptions,
    Record,
    Reference,
    Start,
    StepResult,
    undefined_record,
)
from cflows_ray.flows.central import CENTRAL
from cflows_ray.flows.midpoint import MIDPOINT
from cflows_ray.flows.stable import STABLE

FLOWS: dict[str, Flow] = {
    "midpoint": MIDPOINT,
    "stable": STABLE,
    "central": CENTRAL,
}

__all__ = [
    "ABSENT",
    "DIVERGED",
    "FLOWS",
    "OK",
    "STOPPED",
    "Counts",
    "Flow",
    "FlowContext",
    "FlowOptions",
    "Record",
    "Reference",
    "Start",
    "StepResult",
    "discrete",
    "undefined_record",
]
