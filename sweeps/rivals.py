"""Which model of training is nearest to the optimizer? All flows in the same runs.

    python sweeps/rivals.py                                     # all of it, over an hour
    python sweeps/rivals.py --only gradient_descent digits_mlp  # a part
    python -m analysis results/rivals                           # tables and figures

Four optimizers on handwritten digits, at a gentle and a violent learning rate; with cross-entropy,
on an MLP (CIFAR-10) and (gradient descent and Adam) on a transformer that sorts, at rates that
pilots put a little beyond the edge of stability. Three seeds; the onset of the oscillation is
within the runs. On digits the gentle ones are made once more with flows that begin anew at the
optimizer every 50 steps: forecasts by lead time.
"""

from collections.abc import Iterator
from typing import Any

from cflows_ray.sweep import AroundEdge, Execution, Grid, SweepConfig, main
from sweeps.beyond_edge import beyond_edge

FLOWS = (
    "midpoint",
    "stable",
    "central",
    "alternating",
    "edge",
    "rod",
    "covariance",
    "corrected",
    "central_unforced",
    "persistence",
)
WITHOUT_COVARIANCE = tuple(name for name in FLOWS if name != "covariance")
"""The covariance flow is not defined with momentum."""

RULES: tuple[tuple[str, tuple[float, float], dict[str, Any]], ...] = (
    ("gradient_descent", (0.2, 0.3), {}),
    ("rmsprop", (3e-4, 5e-4), {}),
    ("gradient_descent", (0.22, 0.25), {"momentum": 0.5, "flows": WITHOUT_COVARIANCE}),
    ("adam", (0.01, 0.02), {"beta2": 0.99, "flows": WITHOUT_COVARIANCE}),
)
"""Rule, two learning rates for squared error on digits (from runs of the optimizer), the rest."""

DIGITS = {"num_examples": 300, "width": 16}
NETWORKS = (("mlp_cifar10", 200, RULES), ("transformer_sorting", 120, (RULES[0], RULES[3])))
"""Workloads at `cpu` scale, the steps of their runs, and the rules."""

RESTARTS = {"restart_every": 50}


def grids() -> Iterator[Grid]:
    """Yield the grids: digits with both criteria, the other networks, digits with forecasts."""
    for rule, lrs, more in RULES:
        yield Grid("digits_mlp", rule, lrs, workload_options=DIGITS, more=more)
        around = AroundEdge(factors=(1.25,), steps=150)
        yield Grid("digits_mlp", rule, around, "cross_entropy", DIGITS, more=more)
    for workload, steps, rules in NETWORKS:
        for rule, _, more in rules:
            yield beyond_edge(workload, rule, steps, more)
    for rule, lrs, more in RULES:
        yield Grid("digits_mlp", rule, lrs[:1], workload_options=DIGITS, more={**more, **RESTARTS})


SWEEP = SweepConfig(
    name="rivals",
    grids=tuple(grids()),
    seeds=(0, 1, 2),
    steps=400,
    warmup=15,
    num_eigs=12,
    substeps=4,  # as the numbers of docs/rivals.md were made
    flows=FLOWS,
    target_windows=("5", "20", "50", "loop"),
    execution=Execution(chunk_steps=50),
)

if __name__ == "__main__":
    main(SWEEP)
