"""Where gradient descent reaches the edge of stability: the table of docs/workloads.md.

    python -m sweeps.edge_table                       # every architecture; rewrites the table
    python -m sweeps.edge_table --only vit_cifar10 --lr 0.1 --dry-run

For each architecture at `cpu` scale and each criterion, runs plain gradient descent from seed 0 on
the real data at the middle learning rate of `paper_gd.py` and follows the effective sharpness (the
learning rate times the top Hessian eigenvalue) step by step until it first reaches 2.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cflows_ray import GradientDescent, PairedOptions, PairedRun
from cflows_ray.workloads import build_workload
from sweeps.paper_gd import RATES
from sweeps.paper_studies import ARCHITECTURES

DOCUMENT = Path(__file__).parent.parent / "docs" / "workloads.md"
BEGIN, END = "<!-- edge table: begin -->", "<!-- edge table: end -->"
HEADER = (
    "| workload | criterion | parameters | examples | sharpness at start | learning rate "
    "| effective sharpness first >= 2 at step | seconds a step |\n"
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
)
CHUNK = 20


@dataclass(frozen=True)
class Options:
    """What to measure."""

    only: tuple[str, ...] = ARCHITECTURES
    """Architectures."""
    criteria: tuple[str, ...] = ("mse", "cross_entropy")
    """Training losses."""
    lr: float | None = None
    """Learning rate, instead of the study's middle one."""
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


def measure(name: str, criterion: str, lr: float, steps: int) -> Row:
    """Run gradient descent until its effective sharpness reaches 2, or for `steps` steps.

    The seconds a step are those of the optimizer's own step and of the eigenvalues that are
    tracked at every step, the first chunk, which holds the compilation, left out.
    """
    workload = build_workload(name, criterion, scale="cpu")
    options = PairedOptions(flows=(), num_eigs=1)
    run = PairedRun(workload.problem, GradientDescent(lr=lr), options)
    state = run.start(workload.init(0), steps=steps, warmup=0, seed=0)
    sharpness, edge_step, seconds, counted = None, None, 0.0, 0
    while not run.is_done(state) and edge_step is None:
        before, began = run.step(state), time.perf_counter()
        compiled = run.compile_s
        state, rows = run.advance(state, CHUNK)
        seconds += time.perf_counter() - began - (run.compile_s - compiled)
        counted += run.step(state) - before
        rows = rows[rows.process == "discrete"]
        if sharpness is None:
            sharpness = float(rows.effective_sharpness.iloc[0]) / lr
        above = rows.step[rows.effective_sharpness >= 2]
        edge_step = int(above.iloc[0]) if len(above) else None
    assert sharpness is not None
    return Row(
        workload=name,
        criterion=criterion,
        num_params=run.num_params,
        examples=len(workload.problem.data["x"]),
        sharpness=sharpness,
        lr=lr,
        edge_step=edge_step,
        step_s=seconds / max(counted, 1),
    )


def rewrite(document: Path, rows: list[Row]) -> None:
    """Put the rows between the document's markers."""
    text = document.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    table = HEADER + "\n".join(map(str, rows))
    document.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Measure, print, and rewrite the table."""
    options = tyro.cli(Options)
    print(HEADER, end="", flush=True)
    rows = []
    for name in options.only:
        for criterion in options.criteria:
            rates = RATES["cpu"][name][criterion]
            row = measure(name, criterion, options.lr or rates[len(rates) // 2], options.steps)
            print(row, flush=True)
            rows.append(row)
    if not options.dry_run:
        rewrite(DOCUMENT, rows)
        print(f"wrote {DOCUMENT}", file=sys.stderr)


if __name__ == "__main__":
    main()
