"""Table `compile`: what the program of a paired run costs to compile, by the processes in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cflows_ray import Problem
from cflows_ray.linalg import solve_sdcp
from cflows_ray.linalg.symmetric import num_pairs
from cflows_ray.paired.run import PairedOptions, PairedRun
from cflows_ray.workloads import build_workload
from tests.benchmarks.measuring import table
from tests.benchmarks.problems import images, reference_problem
from tests.benchmarks.table_memory import chunk_program

WORKLOADS = ("reference", "digits_mlp", "cnn_cifar10", "resnet_cifar10", "vit_cifar10")
NUM_EIGS = 4
SELECTIONS: dict[str, tuple[str, ...]] = {
    "optimizer": (),
    "optimizer, stable": ("stable",),
    "optimizer, central": ("central",),
    "optimizer, stable, central": ("stable", "central"),
}


class Compiled(NamedTuple):
    """Processor seconds of tracing and of compiling, and instructions of the compiled program."""

    tracing_s: float
    compile_s: float
    instructions: int


def compiled(function: Callable[..., Any], *args: Any) -> Compiled:
    """Trace and compile a function, whatever is in JAX's caches."""
    jax.clear_caches()
    begin = time.process_time()
    lowered = jax.jit(function).lower(*args)
    traced = time.process_time()
    executable = lowered.compile()
    end = time.process_time()
    return Compiled(traced - begin, end - traced, executable.as_text().count(" = "))


def chunk_compiled(problem: Problem, params: Any, flows: tuple[str, ...]) -> Compiled:
    """Compile the program of a run's chunk, with everything that `steps` records."""
    options = PairedOptions(num_eigs=NUM_EIGS, flows=flows)
    program, args = chunk_program(problem, params, options)
    with PairedRun.mode():
        return compiled(program._advance, *args)


def _problem(name: str) -> tuple[Problem, Any]:
    if name == "reference":
        loss, params = reference_problem()
        return Problem(lambda p, _: loss(p)), params
    is_images = name.endswith("cifar10")
    workload = images(name, scale="cpu")[0] if is_images else build_workload(name)
    return workload.problem, workload.init(0)


def compile_table(only: Sequence[str] = ()) -> Iterator[str]:
    """Yield a table of programs by workload and processes, and one of complementarity problems."""
    yield (
        "Instructions: of the compiled program, fusions counted with what is in them. Processor "
        f"seconds, each compiled once; {NUM_EIGS} tracked directions, gradient descent, float32."
    )
    header = "workload | processes | instructions | tracing s | compiling s"
    rows: list[tuple[Any, ...]] = []
    for name in only or WORKLOADS:
        problem, params = _problem(name)
        for label, flows in SELECTIONS.items():
            found = chunk_compiled(problem, params, flows)
            rows.append((name, label, found.instructions, found.tracing_s, found.compile_s))
    yield table(header, rows)
    yield "The solver of the complementarity problem, which does not depend on the network:"
    rows = []
    for k in (1, 4, 6, 12):
        with jax.enable_x64(True):
            guess, m = jnp.eye(k), num_pairs(k)
            found = compiled(solve_sdcp, guess, jnp.eye(m), jnp.asarray(k, jnp.int32), guess)
        rows.append((k, found.instructions, found.tracing_s, found.compile_s))
    yield table("k | instructions | tracing s | compiling s", rows)
