"""Table `memory`: bytes that a compiled chunk of a paired run needs, beside d and k."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from cflows_ray import GradientDescent
from cflows_ray.paired.program import PairedProgram
from cflows_ray.paired.run import PairedOptions, PairedRun
from cflows_ray.problem import ParamStructure, Problem
from cflows_ray.workloads import Workload, build_workload
from tests.benchmarks.measuring import table
from tests.benchmarks.problems import DATA, PAPER_SLICES, has_cifar10, images

WORKLOADS = ("digits_mlp", "cnn_cifar10", "resnet_cifar10", "vit_cifar10", "transformer_sorting")
NUM_EIGS, PAPER_EIGS, LIMIT_GB = 4, 12, 16.0
HEADER = (
    "workload | products | d | k | arguments MB | results MB | temporary MB | "
    "in all MB | in vectors of d | compile s"
)


@dataclass(frozen=True)
class ProgramMemory:
    """Bytes of a compiled program: what it is given, returns, needs meanwhile, and shares."""

    arguments: int
    results: int
    temporary: int
    shared: int
    compile_s: float

    @property
    def total(self) -> int:
        """Bytes while the program runs; results that lie in arguments count once."""
        return self.arguments + self.results + self.temporary - self.shared


def chunk_program(
    problem: Problem, params: Any, options: PairedOptions
) -> tuple[PairedProgram, tuple[Any, ...]]:
    """Return the program of a paired run and the shapes that its chunk is compiled for."""
    run = PairedRun(problem, GradientDescent(0.01), options)
    structure = ParamStructure.of(params, options.dtype)
    program = run._use_program(structure)
    with PairedRun.mode():
        state = run._abstract_state(structure, options.num_eigs)
        return program, (run.traced_rule(), run.inputs, state, jnp.asarray(1, jnp.int32))


def advance_memory(workload: Workload, num_eigs: int) -> tuple[int, ProgramMemory]:
    """Compile a paired run's chunk without running it; return d and its memory.

    All flows, float32, with everything that `steps` records.
    """
    options = PairedOptions(num_eigs=num_eigs)
    program, args = chunk_program(workload.problem, workload.init(0), options)
    program._executables.clear()
    before = program.compile_s
    with PairedRun.mode():
        found = program._executable("advance", program._advance, *args).memory_analysis()
    return program.structure.size, ProgramMemory(
        found.argument_size_in_bytes,
        found.output_size_in_bytes,
        found.temp_size_in_bytes,
        found.alias_size_in_bytes,
        program.compile_s - before,
    )


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Compile what another platform than a CPU would run: products in batches."""

    def other(*args: Any, default: Callable[..., Any], **by_platform: Any) -> Any:
        del by_platform
        return default(*args)

    with mock.patch.object(jax.lax, "platform_dependent", other):
        jax.clear_caches()
        yield
    jax.clear_caches()


def memory(only: Sequence[str] = (), paper: bool = False) -> Iterator[str]:
    """Yield the tables; the second compiles the paper-scale ViT four times."""
    yield (
        "Compiler's figures for one chunk (discrete, stable and central flow, float32, mean "
        "squared error). A CPU computes Hessian products one by one; `batched` is the program that "
        "a GPU gets, compiled for this CPU. The last column but one is all of it in vectors of d "
        "numbers of 4 bytes."
    )
    rows = []
    for name in only or WORKLOADS:
        if "cifar10" in name and not has_cifar10():
            yield f"{name}: skipped, set {DATA} to the folder of CIFAR-10's binary files."
            continue
        scale = {} if name == "digits_mlp" else {"scale": "cpu"}
        workload = build_workload(name, **scale)
        rows.append(_row(name, workload, NUM_EIGS, batched=False))
    if rows:
        yield table(HEADER, rows)
    if paper:
        yield from _paper()


def _paper() -> Iterator[str]:
    """Yield the table of the ViT at paper scale, row by row, since each takes minutes."""
    for ghost_batch in (PAPER_SLICES["vit_cifar10"], 0):
        workload, kind = images("vit_cifar10", ghost_batch=ghost_batch)
        for batched in (False, True):
            label = f"vit_cifar10, paper scale, {kind}, "
            label += f"slices of {ghost_batch}" if ghost_batch else "whole batch"
            row = _row(label, workload, PAPER_EIGS, batched=batched)
            verdict = "within" if row[7] <= 1000 * LIMIT_GB else "above"
            yield table(HEADER, [row]) + f"\n\nThat is {verdict} {LIMIT_GB:g} GB."


def _row(label: str, workload: Workload, num_eigs: int, *, batched: bool) -> tuple:
    with as_on_a_gpu() if batched else contextlib.nullcontext():
        d, found = advance_memory(workload, num_eigs)
    parts = (found.arguments, found.results, found.temporary, found.total)
    kind = "batched" if batched else "one by one"
    megabytes = (x / 1e6 for x in parts)
    return label, kind, d, num_eigs, *megabytes, found.total / (4 * d), found.compile_s
