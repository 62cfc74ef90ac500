"""Quickstart: gradient descent, Scalar RMSProp, RMSProp and Adam on handwritten digits.

    python sweeps/quickstart.py            # a few minutes on two CPU cores
    python -m analysis results/quickstart  # the table and figures

The learning rates put each optimizer at the edge of stability within the first hundred or so of
its steps, so that the flows' predictions differ.
"""

from cflows_ray.sweep import Execution, Grid, SweepConfig, main

LEARNING_RATES = {
    "gradient_descent": (0.2, 0.25),
    "scalar_rmsprop": (0.02, 0.03),
    "rmsprop": (3e-4, 5e-4),
    "adam": (0.02, 0.03),
}
NETWORK = {"num_examples": 300, "width": 16}

SWEEP = SweepConfig(
    name="quickstart",
    grids=tuple(
        Grid(workload="digits_mlp", rule=rule, lrs=lrs, workload_options=NETWORK)
        for rule, lrs in LEARNING_RATES.items()
    ),
    seeds=(0, 1, 2),
    steps=400,
    warmup=15,
    num_eigs=12,  # enough for all of these: a program for each rule, and not two
    execution=Execution(chunk_steps=50),
)

if __name__ == "__main__":
    main(SWEEP)
