"""Table `networks`: error of the central flow's schemes on real networks, against what they cost.

Each scheme runs once, in float32; costs are counts and measured derivatives, which other work on
the machine does not blur. The reference is the adaptive scheme with a tolerance of 1e-3, below
which nothing changes (the eigensolver's own tolerance bounds it): fixed substeps as fine as that
would take hours here. A scheme whose error is its own is told apart from one that lost the edge by
the rows that are off it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jax.flatten_util import ravel_pytree

from cflows_ray import GradientDescent, run_paired
from cflows_ray.workloads import Workload, build_workload
from tests.benchmarks.measuring import number, table
from tests.benchmarks.problems import images
from tests.benchmarks.table_precision import Scheme
from tests.benchmarks.table_steps import predicted
from tests.benchmarks.unit_costs import DerivativeCosts, DerivativeMeter, flat_problem

REFERENCE = Scheme("adaptive", tolerance=1e-3)
SCHEMES = (Scheme("euler", 4), Scheme("extrapolated", 4), Scheme("adaptive", tolerance=1e-2))
# one that has lost the edge costs a hundredfold: once is enough
WITH_A_COARSE_ONE = (SCHEMES[0], Scheme("extrapolated", 2), *SCHEMES[1:])
WARMUP, NUM_EIGS, OFF = 15, 6, 0.02


class Case(NamedTuple):
    """A workload at `cpu` scale, a rate at which gradient descent comes to the edge, and steps."""

    workload: str
    criterion: str
    lr: float
    steps: int
    schemes: tuple[Scheme, ...] = SCHEMES


CASES = (
    Case("mlp_cifar10", "cross_entropy", 0.125, 150, WITH_A_COARSE_ONE),
    Case("cnn_cifar10", "mse", 0.25, 120),
    Case("transformer_sorting", "mse", 0.125, 100),
    Case("vit_cifar10", "mse", 0.25, 130),
)


class Path(NamedTuple):
    """A central path: last point, rows at the edge and off it, counts, distance travelled."""

    end: np.ndarray
    at_edge: int
    off_edge: int
    counts: np.ndarray
    from_optimizer: float
    travelled: float


def networks(only: Sequence[str] = ()) -> Iterator[str]:
    """Yield a table for each workload, or for those that are named."""
    yield (
        "Error: distance to the reference's last point over the way of the optimizer. Off the "
        f"edge: rows with critical directions whose effective sharpness is more than {OFF} from 2, "
        "of those with critical directions. Cost: gradients, from counts and measured derivatives."
    )
    for case in CASES:
        if not only or case.workload in only:
            yield from _table(case)


def _table(case: Case) -> Iterator[str]:
    name, about = case.workload, {"criterion": case.criterion, "scale": "cpu"}
    workload, data = (
        images(name, **about)
        if name.endswith("cifar10")
        else (build_workload(name, **about), "its own sequences")
    )
    flat = flat_problem(workload.problem, workload.init(0))
    costs = DerivativeMeter(flat).costs(clock="processor", repetitions=3)
    truth = _run(case, workload, REFERENCE)
    yield (
        f"{name}, {case.criterion}, gradient descent at {case.lr:g}, {case.steps} steps on {data}; "
        f"reference {truth.off_edge} of {truth.at_edge} rows off the edge, {costs}."
    )
    rows = [_row(s, _run(case, workload, s), truth, costs) for s in case.schemes]
    rows.append(_row(REFERENCE, truth, truth, costs))
    yield table(
        "scheme and substeps, or tolerance | error % | off the edge | from the optimizer % | "
        "cost in gradients | gradients | products | third derivatives",
        rows,
    )


def _run(case: Case, workload: Workload, scheme: Scheme) -> Path:
    result = run_paired(
        workload.problem.loss,
        workload.init(0),
        GradientDescent(case.lr),
        data=workload.problem.data,
        steps=case.steps,
        flows=("central",),
        warmup=WARMUP,
        num_eigs=NUM_EIGS,
        progress=False,
        **scheme.settings(),
    )
    rows = result.steps[result.steps.process == "central"]
    at_edge = rows.num_critical > 0
    off = at_edge & ((rows.effective_sharpness - 2.0).abs() > OFF)
    last = rows.iloc[-1]
    travelled = float(result.steps[result.steps.process == "discrete"].distance_from_start.iloc[-1])
    end = ravel_pytree(result.final["central"])[0]
    counts = last[["num_gradients", "num_hvps", "num_third_derivatives"]].to_numpy(float)
    return Path(
        np.asarray(end, float), int(at_edge.sum()), int(off.sum()), counts,
        float(last.distance_to_discrete) / travelled, travelled,
    )  # fmt: skip


def _row(scheme: Scheme, path: Path, truth: Path, costs: DerivativeCosts) -> tuple:
    cost = predicted(path.counts, costs) / costs.gradient_s
    error = np.linalg.norm(path.end - truth.end) / truth.travelled
    return (
        str(scheme), "reference" if path is truth else f"{100 * error:.2g}",
        f"{path.off_edge} of {path.at_edge}", f"{100 * path.from_optimizer:.3g}", number(cost),
        *(int(x) for x in path.counts),
    )  # fmt: skip
