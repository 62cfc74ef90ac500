"""Table `existing`: the reference problem beside the JAX implementation that was there before ours.

That implementation is the package `central_flows_jax` of
https://github.com/alex-damian/central_flows_jax, by one of the authors of the paper. It is not a
dependency: it has to be importable (`PYTHONPATH`), with its solver `cvxopt`. It makes one jitted
step at a time and solves complementarity problems with CVXPY through a host callback. Both do the
same here, in one process and in turn: gradient descent and its flows, float32, five pairs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from cflows_ray import GradientDescent, run_paired
from tests.benchmarks.measuring import interleaved, table
from tests.benchmarks.problems import REFERENCE_LR, reference_problem
from tests.benchmarks.table_precision import Scheme

PACKAGE = "central_flows_jax"
NUM_EIGS, SUBSTEPS = 5, 4
TRUTH = Scheme("extrapolated", 32)
SCHEMES = (Scheme("euler", SUBSTEPS), *(Scheme("adaptive", tolerance=x) for x in (1e-2, 3e-2)))


def existing(repetitions: int, steps: int = 1000) -> Iterator[str]:
    """Yield a table without and one with the stable flow; `ImportError` without the package."""
    yield (
        f"{steps:,} steps from the initial parameters, compiled before. Error: distance of the "
        f"central flow's last point from that of {TRUTH} in float64, over the way of the optimizer."
    )
    loss, params = reference_problem()
    run = partial(_ours, loss, params, steps)
    truth, optimizer = run(("central",), TRUTH, "float64")
    way = float(np.linalg.norm(optimizer - np.asarray(ravel_pytree(params)[0])))
    for flows in (("central",), ("stable", "central")):
        calls: dict[str, Callable[[], Any]] = {
            f"{PACKAGE}, {SUBSTEPS} substeps": _theirs(flows, steps),
            **{f"cflows_ray, {s}": partial(run, flows, s) for s in SCHEMES},
        }
        ends = {name: call()[0] for name, call in calls.items()}
        times = interleaved(calls, repetitions)
        theirs = times[next(iter(calls))]
        rows = [
            (
                name,
                time.best_s(),
                time.spread(),
                1e3 * time.best_s() / steps,
                theirs.best_s() / time.best_s(),
                theirs.best_s("processor") / time.best_s("processor"),
                f"{100 * np.linalg.norm(ends[name] - truth) / way:.2g}",
            )
            for name, time in times.items()
        ]
        yield f"Optimizer and {' and '.join(flows)} flow:"
        yield table(
            "implementation | least s | spread | ms a step | faster by wall time | "
            "faster by processor time | error %",
            rows,
        )


def _ours(
    loss: Callable[[Any], Array],
    params: Any,
    steps: int,
    flows: tuple[str, ...],
    scheme: Scheme,
    dtype: str = "float32",
) -> tuple[np.ndarray, np.ndarray]:
    """Return the last points of the central flow and of the optimizer."""
    result = run_paired(
        loss, params, GradientDescent(REFERENCE_LR), steps=steps, flows=flows,
        num_eigs=NUM_EIGS, dtype=dtype, progress=False, **scheme.settings(),
    )  # fmt: skip
    central, optimizer = (
        np.asarray(ravel_pytree(result.final[process])[0], float)
        for process in ("central", "discrete")
    )
    return central, optimizer


def _theirs(flows: tuple[str, ...], steps: int) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """Return what runs the other implementation, and returns the same points of it."""
    package = importlib.import_module(PACKAGE)
    loss, params = reference_problem()
    flat, unravel = ravel_pytree(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params))
    rule = package.GradientDescent(REFERENCE_LR)
    state = rule.initialize_state(flat)
    made = package.make_flow(lambda w: loss(unravel(w)), rule)
    guess = np.random.default_rng(0).standard_normal((flat.size, NUM_EIGS))

    def run() -> tuple[np.ndarray, np.ndarray]:
        start = (flat, state, jnp.asarray(guess, jnp.float32))
        now = dict.fromkeys(("discrete", *flows), start)
        rows = []
        for _ in range(steps):
            for process, at in now.items():
                now[process], row = getattr(made, process)(*at)
                rows.append(row)
        jax.block_until_ready((now, rows))
        return np.asarray(now["central"][0], float), np.asarray(now["discrete"][0], float)

    return run
