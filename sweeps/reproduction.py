"""The paper's claims at `cpu` scale: seven architectures, four optimizers, real data.

    python sweeps/reproduction.py                            # all of it, hours on two cores
    python sweeps/reproduction.py --seeds 0                  # one seed first; the rest later
    python docs/make_study.py reproduction results/reproduction   # docs/reproduction.md

Gradient descent with both criteria; Scalar RMSProp, RMSProp and Adam with squared error. Rates are
multiples of that at which a pilot of the optimizer reaches the edge of stability half-way through
the run; the two fastest architectures have a second rate, further beyond.
"""

from collections.abc import Iterator
from typing import Any

from cflows_ray.sweep import AroundEdge, Execution, Grid, SweepConfig, main
from cflows_ray.workloads import full_options
from sweeps.paper_studies import ARCHITECTURES, WARMUP

STEPS = 200
FACTORS = {"mlp_cifar10": (1.25, 1.75), "lstm_sorting": (1.25, 1.75)}
"""Multiples of the rate at the edge; 1.25 for the architectures that are not named."""

RULES: tuple[tuple[str, tuple[str, ...], dict[str, Any]], ...] = (
    ("gradient_descent", ("mse", "cross_entropy"), {}),
    ("rmsprop", ("mse",), {}),
    ("scalar_rmsprop", ("mse",), {}),
    ("adam", ("mse",), {"beta2": 0.99}),
)
"""Rule, criteria, other hyperparameters."""


def grids() -> Iterator[Grid]:
    """Yield a grid for each rule, criterion and architecture."""
    for rule, criteria, more in RULES:
        for criterion in criteria:
            for workload in ARCHITECTURES:
                yield Grid(
                    workload,
                    rule,
                    AroundEdge(factors=FACTORS.get(workload, (1.25,)), steps=STEPS // 2),
                    criterion,
                    full_options(workload, {"scale": "cpu"}),
                    more=more,
                )


SWEEP = SweepConfig(
    name="reproduction",
    grids=tuple(grids()),
    seeds=(0, 1, 2),
    steps=STEPS,
    warmup=WARMUP,
    num_eigs=6,
    scheme="extrapolated",
    substeps=2,
    stable_scheme="chebyshev",
    flows=("stable", "central", "rod"),
    execution=Execution(chunk_steps=25),
)

if __name__ == "__main__":
    main(SWEEP)
