"""Where gradient descent reaches the edge of stability: the tables of docs/workloads.md.

    python -m sweeps.edge_table                       # every architecture; rewrites the table
    python -m sweeps.edge_table --only vit_cifar10 --lr 0.1 --dry-run
    python -m sweeps.edge_table --scale paper --only lstm_sorting

For each architecture at a scale and each criterion, runs plain gradient descent from seed 0 on the
real data at the middle learning rate of `paper_gd.py` and follows the effective sharpness (the
learning rate times the top Hessian eigenvalue) step by step until it first reaches 2.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from cflows_ray.curvature import linearize_gradient
from cflows_ray.linalg import EigenResult, Matvecs, top_eigenpairs
from cflows_ray.workloads import Workload, build_workload
from sweeps.paper_gd import RATES
from sweeps.paper_studies import ARCHITECTURES

DOCUMENT = Path(__file__).parent.parent / "docs" / "workloads.md"
MARK = "<!-- edge table, {scale} scale: {which} -->"
HEADER = (
    "| workload | criterion | parameters | examples | sharpness at start | learning rate "
    "| effective sharpness first >= 2 at step | seconds a step |\n"
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
)
CHUNK = 10
PASSES = 2  # most passes of the eigensolver a step; it starts from the step before
FIRST_PASSES = 12  # least passes from a random block, whose residuals say nothing where H is small


@dataclass(frozen=True)
class Options:
    """Which rows of the table to measure, and where."""

    scale: Literal["cpu", "paper"] = "cpu"
    """Sizes of networks and data."""
    only: tuple[str, ...] = ARCHITECTURES
    """Architectures."""
    criteria: tuple[str, ...] = ("mse", "cross_entropy")
    """Training losses."""
    lr: float | None = None
    """Learning rate, instead of the study's middle one; leaves the document alone."""
    steps: int = 300
    """Most steps of a run; it ends when the edge is reached."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the rows and leave the document alone."""


@dataclass(frozen=True)
class Row:
    """One line of the table; `edge_step` is None if the edge was not reached."""

    workload: str
    criterion: str
    num_params: int
    examples: int
    sharpness: float
    lr: float
    edge_step: int | None
    step_s: float

    def __str__(self) -> str:
        step = "not reached" if self.edge_step is None else str(self.edge_step)
        return (
            f"| {self.workload} | {self.criterion} | {self.num_params:,} | {self.examples} | "
            f"{self.sharpness:.3g} | {self.lr:g} | {step} | {self.step_s:.2g} |"
        )


def _top(matvecs: Matvecs, basis: Array, min_passes: int, max_passes: int) -> EigenResult:
    """Return the top eigenpair, and whatever comes second."""

    def required(eigvals: Array) -> Array:
        return jnp.arange(eigvals.size) == 0

    return top_eigenpairs(
        matvecs,
        basis,
        tolerance=1e-2,
        required=required,
        min_passes=min_passes,
        min_directions=2,
        max_passes=max_passes,
    )


def gradient_descent(workload: Workload, lr: float) -> Iterator[tuple[list[float], float]]:
    """Yield top Hessian eigenvalues of `CHUNK` steps at a time, and the seconds they took.

    Compilation is left out of the seconds. The eigenvector is carried from step to step, so a step
    costs a gradient and a few products.
    """
    flat, unravel = ravel_pytree(workload.init(0))
    basis = jnp.asarray(np.random.default_rng(0).standard_normal((2, flat.size)), flat.dtype)

    def step(state: tuple[Array, Array], data: PyTree) -> tuple[tuple[Array, Array], Array]:
        params, basis = state
        here = linearize_gradient(lambda w: workload.problem.loss(unravel(w), data), params)
        top = _top(here.hessian_vectors, basis, 1, PASSES)
        return (params - lr * here.grad, top.eigvecs), top.eigvals[0]

    def first(params: Array, basis: Array, data: PyTree) -> Array:
        here = linearize_gradient(lambda w: workload.problem.loss(unravel(w), data), params)
        return _top(here.hessian_vectors, basis, FIRST_PASSES, 100).eigvecs

    def chunk(state: tuple[Array, Array], data: PyTree) -> tuple[tuple[Array, Array], Array]:
        return jax.lax.scan(lambda s, _: step(s, data), state, None, length=CHUNK)

    data = jax.device_put(workload.problem.data)
    compiled = jax.jit(chunk).lower((flat, basis), data).compile()
    state = (flat, jax.jit(first)(flat, basis, data))
    while True:
        began = time.perf_counter()
        state, eigvals = jax.block_until_ready(compiled(state, data))
        yield [float(x) for x in eigvals], time.perf_counter() - began


def measure(name: str, criterion: str, scale: str, lr: float, steps: int) -> Row:
    """Run gradient descent until its effective sharpness reaches 2, or for `steps` steps."""
    workload = build_workload(name, criterion, scale=scale)
    sharpness: list[float] = []
    seconds = 0.0
    for eigvals, chunk_s in gradient_descent(workload, lr):
        sharpness += eigvals
        seconds += chunk_s
        if len(sharpness) >= steps or lr * max(eigvals) >= 2:
            break
    return Row(
        workload=name,
        criterion=criterion,
        num_params=sum(leaf.size for leaf in jax.tree.leaves(workload.init(0))),
        examples=len(workload.problem.data["x"]),
        sharpness=sharpness[0],
        lr=lr,
        edge_step=next((i for i, value in enumerate(sharpness) if lr * value >= 2), None),
        step_s=seconds / len(sharpness),
    )


def rewrite(document: Path, scale: str, rows: list[Row]) -> None:
    """Put rows between the document's marks; rows of other workloads there are kept."""
    begin, end = (MARK.format(scale=scale, which=which) for which in ("begin", "end"))
    text = document.read_text(encoding="utf-8")
    before, rest = text.split(begin)
    old, after = rest.split(end)
    lines = {_kind(line): line for line in old.splitlines() if _kind(line)[0] in ARCHITECTURES}
    lines |= {_kind(str(row)): str(row) for row in rows}
    ordered = sorted(lines, key=lambda kind: (ARCHITECTURES.index(kind[0]), kind[1] != "mse"))
    table = HEADER + "\n".join(lines[kind] for kind in ordered)
    document.write_text(f"{before}{begin}\n\n{table}\n\n{end}{after}", encoding="utf-8")


def _kind(line: str) -> tuple[str, str]:
    """Return workload and criterion of a line of the table; empty words for another line."""
    cells = [cell.strip() for cell in line.split("|")]
    return (cells[1], cells[2]) if len(cells) > 2 else ("", "")


def main() -> None:
    """Measure, print, and rewrite the table."""
    options = tyro.cli(Options)
    print(HEADER, end="", flush=True)
    rows = []
    for name in options.only:
        for criterion in options.criteria:
            rates = RATES[options.scale][name][criterion]
            lr = rates[len(rates) // 2] if options.lr is None else options.lr
            row = measure(name, criterion, options.scale, lr, options.steps)
            print(row, flush=True)
            rows.append(row)
    if not options.dry_run and options.lr is None:
        rewrite(DOCUMENT, options.scale, rows)
        print(f"wrote {DOCUMENT}", file=sys.stderr)


if __name__ == "__main__":
    main()
