"""A sampled study: 2,000 runs on the quickstart's network, learning rates by Sobol points.

    python sweeps/sampled.py                  # 50 minutes of two idle CPU cores
    python -m analysis results/sampled
    python sweeps/sampled.py --samples 1000   # later: as many again, and only these are computed

500 learning rates for each of two rules, two seeds each, over the range in which the optimizer goes
from below the edge of stability to well beyond it. The flows are integrated by the schemes that
cost least at equal accuracy (docs/benchmarks.md).
"""

from cflows_ray.sweep import Execution, Grid, LogUniform, SweepConfig, main

RATES = {
    "gradient_descent": LogUniform(0.05, 0.5, n=500),
    "rmsprop": LogUniform(1e-4, 1e-3, n=500),
}
NETWORK = {"num_examples": 300, "width": 16}

SWEEP = SweepConfig(
    name="sampled",
    grids=tuple(
        Grid(workload="digits_mlp", rule=rule, lrs=lrs, workload_options=NETWORK)
        for rule, lrs in RATES.items()
    ),
    seeds=(0, 1),
    steps=120,
    warmup=15,
    execution=Execution(chunk_steps=120),
)

if __name__ == "__main__":
    main(SWEEP)
