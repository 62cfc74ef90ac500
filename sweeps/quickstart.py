"""Quickstart: gradient descent, Scalar RMSProp and RMSProp on handwritten digits.

    python sweeps/quickstart.py            # a few minutes on two CPU cores
    python -m analysis results/quickstart  # the table and figures

The learning rates put each optimizer at the edge of stability within the first hundred or so of
its steps, so that the flows' predictions differ.
"""

from cflows_ray.sweep import Execution, Grid, SweepConfig, main

LEARNING_RATES = {
    "gradient_descent": (0.15, 0.2, 0.25),
    "scalar_rmsprop": (0.02, 0.03, 0.04),
    "rmsprop": (3e-4, 4e-4, 5e-4),
}
NETWORK = {"num_examples": 300, "width": 16}

SWEEP = SweepConfig(
    name="quickstart",
    grids=tuple(
        Grid(workload="digits_mlp", rule=rule, lrs=lrs, workload_options=NETWORK)
        for rule, lrs in LEARNING_RATES.items()
    ),
    seeds=(0, 1),
    steps=500,
    warmup=15,
    num_eigs=8,
    execution=Execution(chunk_steps=50),
)

if __name__ == "__main__":
    main(SWEEP)
