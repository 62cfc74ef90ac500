"""Table `reference`: one trajectory of the reference problem, against what its derivatives cost."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pandas as pd
from jax.flatten_util import ravel_pytree

from cflows_ray import GradientDescent, Problem, run_paired
from cflows_ray.paired.call import PairedResult
from tests.benchmarks.agreement import compare, oracle_path
from tests.benchmarks.measuring import Clock, Timing, interleaved, table
from tests.benchmarks.problems import REFERENCE_LR, reference_problem
from tests.benchmarks.unit_costs import DerivativeCosts, DerivativeMeter, flat_problem

SELECTIONS: dict[str, tuple[str, ...]] = {
    "discrete": (),
    "discrete + stable": ("stable",),
    "discrete + central": ("central",),
    "discrete + stable + central": ("stable", "central"),
}
ALL = "discrete + stable + central"
SUBSTEPS = 4
ORACLE_WARMUP = 250  # optimizer steps: so late that the edge of stability lies within the path


def run(
    flows: tuple[str, ...], steps: int, dtype: str = "float32", warmup: int = 0
) -> PairedResult:
    """Run the reference problem once."""
    loss, params = _problem()
    return run_paired(
        loss,
        params,
        GradientDescent(REFERENCE_LR),
        steps=steps,
        flows=flows,
        num_eigs=5,
        warmup=warmup,
        substeps=SUBSTEPS,
        dtype=dtype,
    )


def _problem(made: list = []) -> Any:  # noqa: B006
    """Return the reference problem, the same objects each time, so that programs are reused."""
    if not made:
        made.extend(reference_problem())
    return made


def last_counts(steps: pd.DataFrame) -> dict[str, tuple[int, int, int]]:
    """Return gradients, products and third derivatives of each process up to its last row."""
    columns = ["num_gradients", "num_hvps", "num_third_derivatives"]
    last = steps.groupby("process").last()[columns].fillna(0).astype(int)
    return {
        str(name): (int(a), int(b), int(c))
        for name, (a, b, c) in zip(last.index, last.to_numpy(), strict=True)
    }


def derivative_seconds(
    process: str, counts: tuple[int, int, int], steps: int, costs: DerivativeCosts
) -> float:
    """Return the time that a process's counted derivatives need by themselves.

    Every gradient is linearized but those of the stable flow's later substeps.
    """
    gradients, products, third = counts
    plain = max(gradients - steps - 1, 0) if process == "stable" else 0
    return costs.seconds(gradients - plain, plain, products, third)


def timings(steps: int, repetitions: int) -> tuple[dict[str, Timing], dict[str, PairedResult]]:
    """Return times of compiled runs of each selection of flows, and their first runs."""
    first = {name: run(flows, steps) for name, flows in SELECTIONS.items()}
    calls = {name: functools.partial(run, flows, steps) for name, flows in SELECTIONS.items()}
    return interleaved(calls, repetitions), first


def reference(
    repetitions: int,
    clock: Clock,
    steps: int = 1000,
    oracle_steps: int = 300,
) -> Iterator[str]:
    """Yield the table's parts as they are measured."""
    loss, params = _problem()
    flat = flat_problem(Problem(lambda p, _: loss(p)), params)
    costs = DerivativeMeter(flat, num_rows=5).costs(clock=clock)
    times, first = timings(steps, repetitions)
    result = first[ALL]
    counts = last_counts(result.steps)
    yield _time_table(times, first)
    yield f"Measured alone on the {clock} clock: {costs}."
    discrete_s = times["discrete"].best_s(clock)
    base = {"discrete": 0.0, "stable": discrete_s, "central": discrete_s}
    rows: list[tuple[Any, ...]] = []
    for process, name in zip(("discrete", "stable", "central"), list(SELECTIONS)[:3], strict=True):
        alone = times[name].best_s(clock) - base[process]
        derivatives = derivative_seconds(process, counts[process], steps, costs)
        rows.append(
            (process, alone, *counts[process], derivatives, f"{100 * derivatives / alone:.0f}%")
        )
    total = times[ALL].best_s(clock)
    derivatives = float(sum(row[5] for row in rows))
    summed = (sum(c[i] for c in counts.values()) for i in range(3))
    rows.append((ALL, total, *summed, derivatives, f"{100 * derivatives / total:.0f}%"))
    header = (
        f"process | s, {clock} (differences of minima) | gradients | products | "
        "third derivatives | s of these alone | share of derivatives"
    )
    yield table(header, rows)
    yield f"Status: {_statuses(result)}; compile time {result.compile_s:.1f} s."
    if oracle_steps:
        yield _agreement_table(oracle_steps)


def _time_table(times: dict[str, Timing], first: dict[str, PairedResult]) -> str:
    header = "processes | least s | spread | least processor s | spread | steps/s | compile s"
    rows = []
    for name, timing in times.items():
        steps = int(first[name].steps.step.max())
        rows.append(
            (
                name,
                timing.best_s(),
                timing.spread(),
                timing.best_s("processor"),
                timing.spread("processor"),
                steps / timing.best_s(),
                first[name].compile_s,
            )
        )
    return table(header, rows)


def _statuses(result: PairedResult) -> str:
    labels = result.steps.process.astype(str) + " " + result.steps.status.astype(str)
    counted = labels.value_counts().sort_index()
    critical = result.steps[result.steps.process == "central"].num_critical
    shares = critical.value_counts(normalize=True).sort_index()
    share = ", ".join(f"{c}: {100 * x:.0f}%" for c, x in shares.items())
    words = ", ".join(f"{label} {n}" for label, n in counted.items())
    return f"{words}; critical directions of the central flow {share}"


def _agreement_table(steps: int) -> str:
    loss, params = _problem()
    with jax.enable_x64(True):
        flat, unravel = ravel_pytree({k: np.asarray(v) for k, v in params.items()})
    oracle = oracle_path(
        lambda w: loss(unravel(w)),
        np.asarray(flat),
        ("gradient_descent", REFERENCE_LR, 0.0),
        steps,
        substeps=SUBSTEPS,
        warmup=ORACLE_WARMUP,
        dense=False,
    )
    rows = []
    for dtype in ("float32", "float64"):
        result = run(("central",), steps, dtype, ORACLE_WARMUP)
        last = np.concatenate([np.ravel(result.final["central"][k]) for k in sorted(params)])
        gaps = compare(result.steps[result.steps.process == "central"], last, oracle)
        rows.append(
            (
                dtype,
                f"{gaps.predicted_loss:.1e}",
                f"{gaps.sharpness:.1e}",
                f"{gaps.sigma_trace:.1e}",
                f"{gaps.params:.1e}",
                f"{100 * gaps.num_critical:.1f}%",
            )
        )
    header = (
        "dtype | predicted loss | effective sharpness | trace of Σ | last point | "
        "rows with another number of critical directions"
    )
    critical = np.array(oracle.num_critical)
    return (
        f"Largest relative differences from the float64 oracle over {steps} steps after "
        f"{ORACLE_WARMUP} optimizer steps; of its rows "
        f"{100 * np.mean(critical > 0):.0f}% have critical directions, at most {critical.max()}:"
        "\n\n" + table(header, rows)
    )
