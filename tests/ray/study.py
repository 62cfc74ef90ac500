"""A study as a user writes one, for tests that launch it as a command of its own.

The environment variable CFLOWS_RAY_TEST_CACHE names the folder of compiled programs.
"""

import atexit
import os
import sys

from cflows_ray.sweep.cli import main
from cflows_ray.sweep.config import Grid, SweepConfig
from cflows_ray.sweep.execution_settings import Execution

SWEEP = SweepConfig(
    name="study",
    grids=(Grid(workload="saddle_2d", rule="gradient_descent", lrs=(0.2, 0.19)),),
    seeds=(0, 1),
    steps=300,
    warmup=3,
    execution=Execution(chunk_steps=5, compile_cache=os.environ["CFLOWS_RAY_TEST_CACHE"]),
)

if __name__ == "__main__":
    atexit.register(lambda: print("driver loaded JAX:", "jax" in sys.modules))
    main(SWEEP)
