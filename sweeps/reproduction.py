"""The paper's claims at `cpu` scale: seven architectures, four optimizers, real data.

    python sweeps/reproduction.py                            # all of it, hours on two cores
    python sweeps/reproduction.py --seeds 0                  # one seed first; the rest later
    python docs/make_study.py reproduction results/reproduction --add --bandwidth 10   # the page

Gradient descent with both criteria; Scalar RMSProp, RMSProp and Adam with squared error. Rates are
multiples of that at which the optimizer reaches the edge of stability within the run: the central
rates of the paper's three studies (docs/workloads.md says how they were found), for Adam a pilot's.
The two fastest architectures have a second rate, further beyond.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from cflows_ray.sweep import AroundEdge, Execution, Grid, SweepConfig, main
from cflows_ray.workloads import full_options
from sweeps import paper_gd, paper_rmsprop, paper_scalar_rmsprop
from sweeps.paper_studies import ARCHITECTURES, FACTORS, WARMUP, Rates

STEPS = 200
BEYOND = {"mlp_cifar10": (1.25, 1.75), "lstm_sorting": (1.25, 1.75)}
"""Multiples of the rate at the edge; 1.25 for the architectures that are not named."""

RULES: tuple[tuple[str, tuple[str, ...], Rates | None, dict[str, Any]], ...] = (
    ("gradient_descent", ("mse", "cross_entropy"), paper_gd.RATES, {}),
    ("rmsprop", ("mse",), paper_rmsprop.RATES, {}),
    ("scalar_rmsprop", ("mse",), paper_scalar_rmsprop.RATES, {}),
    ("adam", ("mse",), None, {"beta2": 0.99}),
)
"""Rule, criteria, the study that its rates are from, other hyperparameters."""


def rates(found: Rates | None, workload: str, criterion: str) -> Sequence[float] | AroundEdge:
    """Return the learning rates of a cell: beyond what a study or a pilot found."""
    factors = BEYOND.get(workload, (1.25,))
    if found is None:
        return AroundEdge(factors=factors, steps=STEPS // 2)
    centre = found["cpu"][workload][criterion][FACTORS.index(1.0)]
    return tuple(float(f"{factor * centre:.4g}") for factor in factors)


def grids() -> Iterator[Grid]:
    """Yield a grid for each rule, criterion and architecture."""
    for rule, criteria, found, more in RULES:
        for criterion in criteria:
            for workload in ARCHITECTURES:
                yield Grid(
                    workload,
                    rule,
                    rates(found, workload, criterion),
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
    flows=("stable", "central", "rod"),
    execution=Execution(chunk_steps=25),
)

if __name__ == "__main__":
    main(SWEEP)
