"""Print benchmark tables in Markdown.

python -m tests.benchmarks reference steps
python -m tests.benchmarks precision --repetitions 5
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from tests.benchmarks.measuring import Clock, cached_by_jax, machine

Name = Literal[
    "reference",
    "existing",
    "steps",
    "memory",
    "compile",
    "precision",
    "networks",
    "stable",
    "sweep",
]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    tables: Annotated[tuple[Name, ...], tyro.conf.Positional] = ("reference", "steps", "precision")
    """Tables to print."""
    repetitions: int = 5
    """Repetitions of everything timed."""
    clock: Clock = "processor"
    """Clock of costs and shares: wall seconds, or processor seconds of all threads, which other
    work on the machine does not blur. Wall times are printed beside."""
    steps: int = 1000
    """`reference`, `existing`: optimizer steps."""
    oracle_steps: int = 300
    """`reference`: steps compared with the float64 oracle; 0 for none."""
    workloads: tuple[str, ...] = ()
    """`steps`, `memory`, `compile`, `networks`: only these workloads."""
    critical: tuple[int, ...] = (0, 1, 3)
    """`steps`: numbers of critical directions."""
    paper: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """`memory`: compile the paper-scale ViT too, which takes long."""
    sweep_steps: int = 1000
    """`sweep`: optimizer steps of a trial."""
    tiny: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """`precision`, `stable`, `sweep`: as small as possible, to try the machinery."""


def _reference(options: Options) -> Iterator[str]:
    from tests.benchmarks.table_reference import reference

    return reference(options.repetitions, options.clock, options.steps, options.oracle_steps)


def _existing(options: Options) -> Iterator[str]:
    from tests.benchmarks.table_existing import existing

    return existing(options.repetitions, options.steps)


def _steps(options: Options) -> Iterator[str]:
    from tests.benchmarks.table_steps import steps

    return steps(options.repetitions, options.clock, options.workloads, options.critical)


def _memory(options: Options) -> Iterator[str]:
    from tests.benchmarks.table_memory import memory

    return memory(options.workloads, options.paper)


def _compile(options: Options) -> Iterator[str]:
    from tests.benchmarks.table_compile import compile_table

    return compile_table(options.workloads)


def _precision(options: Options) -> Iterator[str]:
    from tests.benchmarks.table_precision import precision

    return precision(options.repetitions, options.clock, options.tiny)


def _networks(options: Options) -> Iterator[str]:
    from tests.benchmarks.table_networks import networks

    return networks(options.workloads)


def _stable(options: Options) -> Iterator[str]:
    from tests.benchmarks.table_stable import stable

    return stable(options.tiny)


def _sweep(options: Options) -> Iterator[str]:
    from tests.benchmarks.table_sweep import sweep

    return sweep(options.repetitions, options.sweep_steps, options.tiny)


TABLES: dict[str, Callable[[Options], Iterator[str]]] = {
    "reference": _reference,
    "existing": _existing,
    "steps": _steps,
    "memory": _memory,
    "compile": _compile,
    "precision": _precision,
    "networks": _networks,
    "stable": _stable,
    "sweep": _sweep,
}


def main(options: Options) -> None:
    """Print each table under its name."""
    for name in options.tables:
        print(f"\n## {name}\n\n{machine()} {cached_by_jax()[0].upper()}{cached_by_jax()[1:]}.\n")
        for part in TABLES[name](options):
            print(part, end="\n\n", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
