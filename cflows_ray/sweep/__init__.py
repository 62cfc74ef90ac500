"""Many runs: what a study asks for, its command line, and carrying it out on a Ray cluster.

Hands out what a study's file needs: `Grid`, `SweepConfig`, `Execution` and `main`; what
hyperparameters are sampled from, `LogUniform`, `Uniform` and `Choice`; learning rates relative to
the edge of stability, `AtSharpness` and `AroundEdge`; and, for scripts, `RunConfig`, `ConfigError`,
`SweepStatus`, `sweep_status` and `print_status`. Ray and JAX are loaded only when runs are carried
out.
"""

from cflows_ray.checks import ConfigError
from cflows_ray.sweep.cli import main
from cflows_ray.sweep.config import Grid, SweepConfig
from cflows_ray.sweep.edge import AroundEdge, AtSharpness
from cflows_ray.sweep.execution_settings import Execution
from cflows_ray.sweep.run_config import RunConfig
from cflows_ray.sweep.sampling import Choice, LogUniform, Uniform
from cflows_ray.sweep.status import SweepStatus, print_status, sweep_status

__all__ = [
    "AroundEdge",
    "AtSharpness",
    "Choice",
    "ConfigError",
    "Execution",
    "Grid",
    "LogUniform",
    "RunConfig",
    "SweepConfig",
    "SweepStatus",
    "Uniform",
    "main",
    "print_status",
    "sweep_status",
]
