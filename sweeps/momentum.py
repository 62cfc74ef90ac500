"""Does the central flow predict optimizers with momentum? Heavy ball, Nesterov, Adam and others.

    python sweeps/momentum.py                       # all of it, about an hour on two cores
    python sweeps/momentum.py --only adam nadam     # two rules
    python -m analysis results/momentum             # the table and figures

Handwritten digits, three seeds, two learning rates a rule: the smaller one reaches the edge of
stability gently, the larger one soon (found by runs of the optimizer alone). The first rate of
heavy ball, Nesterov, Adam and AdamW is run in float64 as well, because how long an oscillation
takes to grow out of rounding noise depends on it. Then an MLP on CIFAR-10 and a transformer that
sorts, at `cpu` scale, each a little beyond the rate at which a pilot reaches the edge.
"""

from collections.abc import Iterator
from typing import Any

from cflows_ray.sweep import Execution, Grid, SweepConfig, main
from sweeps.beyond_edge import beyond_edge

NETWORK = {"num_examples": 300, "width": 16}

RULES: tuple[tuple[str, tuple[float, float], dict[str, Any]], ...] = (
    ("gradient_descent", (0.22, 0.25), {"momentum": 0.5}),
    ("gradient_descent", (0.35, 0.4), {"momentum": 0.9}),
    ("gradient_descent", (0.1, 0.12), {"momentum": 0.9, "nesterov": True}),
    ("rmsprop", (4e-4, 8e-4), {"momentum": 0.9, "beta2": 0.99}),
    ("adam", (0.01, 0.02), {"beta2": 0.99}),
    ("adam", (0.03, 0.04), {"beta2": 0.999}),
    ("adamw", (0.02, 0.03), {"beta2": 0.99, "weight_decay": 0.01}),
    ("nadam", (0.002, 0.005), {"beta2": 0.99}),
)
"""Rule, learning rates on digits, other hyperparameters."""

IN_FLOAT64 = (1, 2, 5, 6)
"""Of these, in float64 too: heavy ball (0.9), Nesterov, Adam (β₂ 0.999), AdamW."""

NETWORKS: tuple[tuple[str, int, tuple[tuple[str, dict[str, Any]], ...]], ...] = (
    (
        "mlp_cifar10",
        200,
        (
            ("gradient_descent", {"momentum": 0.9}),
            ("rmsprop", {"momentum": 0.9, "beta2": 0.99}),
            ("adam", {"beta2": 0.99}),
        ),
    ),
    (
        "transformer_sorting",
        120,
        (("gradient_descent", {"momentum": 0.9}), ("adam", {"beta2": 0.99})),
    ),
)
"""Workload, steps, rules."""


def grids() -> Iterator[Grid]:
    """Yield the grids: digits, the first rate in float64 too; then the other networks."""
    for i, (rule, lrs, more) in enumerate(RULES):
        twice = ((lrs, "float32"), (lrs[:1], "float64"))
        for rates, dtype in twice if i in IN_FLOAT64 else twice[:1]:
            yield Grid(
                workload="digits_mlp",
                rule=rule,
                lrs=rates,
                workload_options=NETWORK,
                more={**more, "dtype": dtype},
            )
    for workload, steps, rules in NETWORKS:
        for rule, more in rules:
            yield beyond_edge(workload, rule, steps, more)


SWEEP = SweepConfig(
    name="momentum",
    grids=tuple(grids()),
    seeds=(0, 1, 2),
    steps=600,
    warmup=30,
    num_eigs=12,
    substeps=4,  # as the numbers of docs/momentum.md were made
    execution=Execution(chunk_steps=50),
)

if __name__ == "__main__":
    main(SWEEP)
