"""Central flows against real optimizers: paired runs, sweeps, prediction accuracy.

    from cflows_ray import run_paired, GradientDescent, RMSProp, Adam

Names are loaded when first used: importing `cflows_ray`, `cflows_ray.schema` or `cflows_ray.sweep`
loads neither JAX nor Ray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cflows_ray.lazy import lazy_names

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
    "PairedOptions": "cflows_ray.paired",
    "PairedPack": "cflows_ray.paired",
    "PairedResult": "cflows_ray.paired",
    "PairedRun": "cflows_ray.paired",
    "forget_programs": "cflows_ray.paired",
    "from_optax": "cflows_ray.rules",
    "run_paired": "cflows_ray.paired",
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

__getattr__ = lazy_names(__name__, _HOME)
