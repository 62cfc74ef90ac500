"""Central flows against real optimizers: paired runs, sweeps, prediction accuracy.

    from cflows_ray import run_paired, GradientDescent, RMSProp, Adam

Names are loaded when first used: importing `cflows_ray`, `cflows_ray.schema` or `cflows_ray.sweep`
loads neither JAX nor Ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cflows_ray.paired import (
        PairedOptions,
        PairedPack,
        PairedResult,
        PairedRun,
        forget_programs,
        run_paired,
    )
    from cflows_ray.problem import Problem
    from cflows_ray.rules import (
        Adam,
        AdamW,
        GradientDescent,
        NAdam,
        RMSProp,
        ScalarAdam,
        ScalarRMSProp,
        from_optax,
    )

__version__ = "0.2.0"

_HOME = {
    "Adam": "cflows_ray.rules",
    "AdamW": "cflows_ray.rules",
    "GradientDescent": "cflows_ray.rules",
    "NAdam": "cflows_ray.rules",
    "ScalarAdam": "cflows_ray.rules",
    "ScalarRMSProp": "cflows_ray.rules",
    "RMSProp": "cflows_ray.rules",
    "PairedOptions": "cflows_ray.paired.run",
    "PairedPack": "cflows_ray.paired.pack",
    "PairedResult": "cflows_ray.paired.call",
    "PairedRun": "cflows_ray.paired.run",
    "forget_programs": "cflows_ray.paired.run",
    "from_optax": "cflows_ray.rules",
    "run_paired": "cflows_ray.paired.call",
    "Problem": "cflows_ray.problem",
}

__all__ = [
    "Adam",
    "AdamW",
    "GradientDescent",
    "NAdam",
    "PairedOptions",
    "PairedPack",
    "PairedResult",
    "PairedRun",
    "Problem",
    "RMSProp",
    "ScalarAdam",
    "ScalarRMSProp",
    "forget_programs",
    "from_optax",
    "run_paired",
]


def __getattr__(name: str) -> Any:
    """Load a public name from where it lives."""
    if name not in _HOME:
        raise AttributeError(f"module 'cflows_ray' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
