"""Timing on a noisy machine, the machine's description, Markdown tables.

Everything is repeated and reported as minimum and spread; the minimum is the figure that noise
disturbs least. Processor seconds stand beside wall seconds, since another process that takes the
core away costs no processor time.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Clock = Literal["wall", "processor"]  # the second counts all threads of this process together


@dataclass(frozen=True)
class Timing:
    """Wall and processor seconds of each repetition."""

    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]

    def seconds(self, clock: Clock) -> tuple[float, ...]:
        """Return each repetition's seconds on a clock."""
        return self.wall_s if clock == "wall" else self.cpu_s

    def best_s(self, clock: Clock = "wall") -> float:
        """Return the least seconds."""
        return min(self.seconds(clock))

    def spread(self, clock: Clock = "wall", unit: float = 1.0) -> str:
        """Return "least to largest", in seconds divided by `unit`."""
        seconds = self.seconds(clock)
        return f"{number(min(seconds) / unit)} to {number(max(seconds) / unit)}"


def repeat(function: Callable[[], Any], repetitions: int) -> Timing:
    """Time calls of a function that returns only when its work is done."""
    return interleaved({"only": function}, repetitions)["only"]


def interleaved(functions: Mapping[str, Callable[[], Any]], repetitions: int) -> dict[str, Timing]:
    """Time several functions in turn, so that each meets the same noise."""
    wall: dict[str, list[float]] = {name: [] for name in functions}
    cpu: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repetitions):
        for name, function in functions.items():
            begin, begin_cpu = time.perf_counter(), time.process_time()
            function()
            wall[name].append(time.perf_counter() - begin)
            cpu[name].append(time.process_time() - begin_cpu)
    return {name: Timing(tuple(wall[name]), tuple(cpu[name])) for name in functions}


def item_cost(
    run: Callable[[int], Any],
    repetitions: int = 3,
    clock: Clock = "wall",
    *,
    target_s: float = 0.2,
    most: int = 1 << 20,
) -> float:
    """Return the seconds of one item, where `run(n)` does n items in one compiled call.

    n is chosen so that a call takes `target_s`; what an empty call takes is subtracted.
    """
    run(1)
    n = 1
    while n < most:
        taken = repeat(lambda: run(n), 1).best_s(clock)  # noqa: B023
        if taken >= target_s:
            break
        n = min(most, max(2 * n, int(n * target_s / max(taken, 1e-6))))
    times = interleaved({"empty": lambda: run(0), "full": lambda: run(n)}, repetitions)
    return max(times["full"].best_s(clock) - times["empty"].best_s(clock), 0.0) / n


def progress(text: str) -> None:
    """Say on standard error what is being done."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def number(x: float) -> str:
    """Return three significant digits, without an exponent where that is readable."""
    if x != x:
        return "-"
    if x == 0 or 1e-3 <= abs(x) < 1e7:
        digits = f"{x:.3g}"
        return f"{x:.0f}" if "e" in digits else digits
    return f"{x:.1e}"


def table(header: str, rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table with columns "a | b"; floats in three significant digits."""

    def cell(x: Any) -> str:
        if isinstance(x, float):
            return number(x)
        return f"{x:,}" if isinstance(x, int) else str(x)

    titles = header.split(" | ")
    lines = [titles, ["---"] * len(titles), *([cell(x) for x in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine() -> str:
    """Describe processor, cores, load and versions in one paragraph."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    versions = [f"Python {platform.python_version()}"]
    for name in ("jax", "jaxlib", "numpy"):
        versions.append(f"{name} {importlib.metadata.version(name)}")
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    return (
        f"{model}, {cores} cores, load average {load} (1, 5, 15 minutes); {', '.join(versions)}; "
        f"OMP_NUM_THREADS {threads}; {time.strftime('%Y-%m-%d', time.gmtime())}."
    )


def cached_by_jax() -> str:
    """Say whether compile times are real or partly read from the persistent cache."""
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    return "with a persistent compilation cache" if folder else "without a compilation cache"
