"""What the paper's three studies share: the architectures, their scales, and a sweep built of both.

A study (`paper_gd.py`, `paper_scalar_rmsprop.py`, `paper_rmsprop.py`) is a table of learning rates
by scale, workload and criterion. `--scale paper` has the sizes of Cohen et al. (ICLR 2025) and
needs GPUs; `--scale cpu` has the same kinds of layers, fewer examples and smaller widths, and takes
minutes a run on one core (sizes: at paper scale the defaults of each network and data set, at cpu
scale `cflows_ray/workloads/registry.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from cflows_ray.sweep import Execution, Grid, SweepConfig, main
from cflows_ray.workloads import full_options

ARCHITECTURES = (
    "mlp_cifar10",
    "cnn_cifar10",
    "resnet_cifar10",
    "vit_cifar10",
    "lstm_sorting",
    "transformer_sorting",
    "mamba_sorting",
)
SCALES = ("cpu", "paper")
SEEDS = (0, 1, 2, 3, 4)

# Optimizer steps before the flows start: the paper takes 10 to 15, to pass the first transient.
WARMUP = 15
STEPS = {"cpu": 300, "paper": 2000}
CHUNK_STEPS = {"cpu": 25, "paper": 50}

# At paper scale a derivative of the whole batch may not fit beside others on a small GPU.
PAPER_OPTIONS: dict[str, dict[str, int]] = {
    "resnet_cifar10": {"ghost_batch": 250},
    "vit_cifar10": {"ghost_batch": 250},
}

# A study's learning rates are multiples of one rate at which the edge of stability is reached.
FACTORS = (0.7, 0.85, 1.0, 1.25, 1.5)

Rates = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]


def around(mse: float, cross_entropy: float) -> dict[str, tuple[float, ...]]:
    """Return five learning rates for each criterion, around the given ones, which are among them.

    Example:
        >>> around(0.1, 0.2)["mse"]
        (0.07, 0.085, 0.1, 0.125, 0.15)
    """
    centres = {"mse": mse, "cross_entropy": cross_entropy}
    return {
        criterion: tuple(float(f"{factor * lr:.4g}") for factor in FACTORS)
        for criterion, lr in centres.items()
    }


def study(name: str, rule: str, rates: Rates, scale: str) -> SweepConfig:
    """Build the sweep of one rule at one scale, from `rates[scale][workload][criterion]`."""
    grids = []
    for workload in ARCHITECTURES:
        extra = PAPER_OPTIONS.get(workload, {}) if scale == "paper" else {}
        # spelt out, so that a run's id follows the sizes and not the word for them
        options = full_options(workload, {"scale": scale, **extra})
        for criterion, lrs in rates[scale][workload].items():
            grid = Grid(
                workload=workload,
                rule=rule,
                lrs=tuple(lrs),
                criterion=criterion,
                workload_options=options,
            )
            grids.append(grid)
    return SweepConfig(
        name=f"{name}_{scale}",
        grids=tuple(grids),
        seeds=SEEDS,
        steps=STEPS[scale],
        warmup=WARMUP,
        execution=Execution(chunk_steps=CHUNK_STEPS[scale]),
    )


def take_scale(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Take `--scale cpu|paper` out of a command line; `cpu` where it is not given.

    Exits with code 2 and one line for another scale.
    """
    rest, scale, words = [], SCALES[0], iter(arguments)
    for word in words:
        if word == "--scale":
            scale = next(words, "nothing")
        elif word.startswith("--scale="):
            scale = word.removeprefix("--scale=")
        else:
            rest.append(word)
    if scale not in SCALES:
        print(f"error: scale must be one of {list(SCALES)}, got {scale!r}", file=sys.stderr)
        sys.exit(2)
    return scale, rest


def run_study(name: str, rule: str, rates: Rates) -> NoReturn:
    """Run a study's command line: `--scale`, and all that `cflows_ray.sweep.cli.main` takes."""
    scale, arguments = take_scale(sys.argv[1:])
    about = f"--scale {'|'.join(SCALES)}: sizes of networks and data, here {scale}."
    main(study(name, rule, rates, scale), arguments, about=about)
