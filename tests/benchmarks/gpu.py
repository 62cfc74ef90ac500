"""Benchmarks for a GPU (or, with `--small`, for trying them on a CPU).

    python -m tests.benchmarks.gpu [--only speed packs] [--out report.md]

Needs neither Ray nor a cluster: only JAX, flax, NumPy, SciPy, pandas, pyarrow, jaxtyping and
scikit-learn for its digits. Two cases of the correctness table, whose oracle meets several critical
directions, need CVXPY as well and are left out without it. Images are CIFAR-10's where
CFLOWS_CIFAR10_DIR names its folder, else random ones of its shape, which cost the same.
"""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cflows_ray import GradientDescent, RMSProp, ScalarRMSProp, run_paired
from cflows_ray.paired.pack import PairedPack
from cflows_ray.paired.run import PairedOptions, PairedRun
from cflows_ray.problem import Problem
from cflows_ray.workloads import Workload, build_workload
from tests.benchmarks.agreement import compare, oracle_path
from tests.benchmarks.central_steps import CentralFlow
from tests.benchmarks.measuring import Clock, machine, number, progress, repeat, table
from tests.benchmarks.parts import parts_table
from tests.benchmarks.problems import LEARNING_RATES, PAPER_SLICES, images
from tests.networks import NETWORKS

# network, kind of rule, rule (as in tests/paired/test_oracle_agreement.py)
CASES: tuple[tuple[str, str, Any], ...] = (
    ("tanh_regression", "gradient_descent", GradientDescent(0.8)),
    ("gelu_classifier", "scalar_rmsprop", ScalarRMSProp(0.1, beta2=0.95)),
    ("deep_linear", "rmsprop", RMSProp(0.01, beta2=0.95)),
)
WORKLOADS = ("cnn_cifar10", "resnet_cifar10", "vit_cifar10")
WARMUP, PACK_SIZES = 15, (1, 4, 16, 64)


def device(args: argparse.Namespace) -> Iterator[str]:
    """Say what this runs on."""
    del args
    found = jax.devices()[0]
    stats = found.memory_stats() or {}
    limit = stats.get("bytes_limit")
    memory = f", {limit / 1e9:.1f} GB for JAX" if limit else ""
    yield f"{found.platform}: {found.device_kind}{memory}; host: {machine()}"


def correctness(args: argparse.Namespace) -> Iterator[str]:
    """Compare float32 and float64 on the device with the float64 oracle on the host's CPU."""
    steps = 60 if args.small else 300
    rows = []
    for network, kind, rule in CASES[:1] if args.small else CASES:
        loss, params = NETWORKS[network]()
        try:
            oracle = oracle_path(
                loss, params, (kind, float(rule.lr), 0.95), steps, substeps=4, warmup=5
            )
        except ModuleNotFoundError as error:
            yield f"{network} left out: {error} (its oracle needs CVXPY)"
            continue
        for dtype in ("float32", "float64"):
            result = run_paired(
                loss, params, rule, steps=steps, flows=("central",), warmup=5, dtype=dtype,
                substeps=4,
            )  # fmt: skip
            central = result.steps[result.steps.process == "central"]
            gaps = compare(central, np.asarray(result.final["central"]), oracle)
            values = (gaps.predicted_loss, gaps.sharpness, gaps.sigma_trace, gaps.params)
            rows.append(
                (
                    network,
                    kind,
                    dtype,
                    gaps.most_critical,
                    *(f"{x:.1e}" for x in values),
                    f"{100 * gaps.num_critical:.1f}%",
                    f"{(central.status == 'ok').mean():.0%}",
                )
            )
    header = (
        "network | rule | dtype | most critical | predicted loss | sharpness | trace of Σ | "
        "last point | rows with another number of critical directions | rows ok"
    )
    yield f"Largest relative differences from the float64 oracle over {steps} steps.\n\n" + table(
        header, rows
    )


def _start(workload: Workload, lr: float, seed: int, options: PairedOptions) -> tuple[Any, Any]:
    """Return a run of gradient descent with its flows, and its state after the warm-up."""
    run = PairedRun(workload.problem, GradientDescent(lr), options)
    return run, run.start(workload.init(seed), steps=100_000, warmup=WARMUP, seed=seed)


def _network(name: str, small: bool, ghost_batch: int = 0) -> tuple[Workload, float, str]:
    """Return a workload at paper (or, if small, `cpu`) scale, its learning rate and its data."""
    scale = "cpu" if small else "paper"
    if name == "digits_mlp":
        return build_workload(name), 0.1, "digits"
    workload, data = images(name, scale=scale, ghost_batch=ghost_batch)
    return workload, LEARNING_RATES[scale][name], data


def peak_gb() -> float:
    """Return the most memory that this process has held on the device so far, or NaN."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use", float("nan")) / 1e9


def speed(args: argparse.Namespace) -> Iterator[str]:
    """Measure steps a second of discrete, stable and central together."""
    header = (
        "workload | data | slices | d | k | record every | steps a second | spread | critical | "
        "compile s | peak memory so far GB"
    )
    for name in args.workloads:
        sliced = 0 if args.small else PAPER_SLICES.get(name, 0)
        rows = []
        # slices first: they need less, and the peak only grows
        for ghost_batch in (sliced, 0) if sliced else (0,):
            workload, lr, data = _network(name, args.small, ghost_batch)
            how = f"of {ghost_batch}" if ghost_batch else "none"
            try:
                rows += [(name, data, how, *_speed(workload, lr, n, args)) for n in (1, 10)]
            except jax.errors.JaxRuntimeError as error:  # out of memory, most likely
                yield f"{name}, slices {how}: {str(error)[:200]}"
        if rows:
            yield table(header, rows)


def _speed(workload: Workload, lr: float, record_every: int, args: argparse.Namespace) -> tuple:
    """Return what a row says of one workload, from d on."""
    options = PairedOptions(num_eigs=8, record_every=record_every)
    run, state = _start(workload, lr, 0, options)
    state, _ = run.advance(state, args.chunk)
    _, frame = run.advance(state, args.chunk)
    timing = repeat(lambda: run.advance(state, args.chunk), args.repetitions)
    rates = sorted(args.chunk / s for s in timing.wall_s)
    central = frame[frame.process == "central"]
    return (
        run.num_params,
        state.num_eigs,
        record_every,
        rates[-1],
        f"{number(rates[0])} to {number(rates[-1])}",
        f"{central.num_critical.min()} to {central.num_critical.max()}",
        run.compile_s,
        peak_gb(),
    )


def packs(args: argparse.Namespace) -> Iterator[str]:
    """Measure the throughput of packs: member-steps a second."""
    header = (
        "workload | members | member-steps a second | spread | over one | compile s | "
        "program GB | peak memory so far GB"
    )
    sizes = PACK_SIZES[:2] if args.small else PACK_SIZES
    for name in ("digits_mlp", "cnn_cifar10"):
        workload, lr, _ = _network(name, args.small)
        # as many directions as these will need: each growth would compile the pack anew
        options = PairedOptions(record_every=10, num_eigs=16 if name == "digits_mlp" else 8)
        rows: list[tuple] = []
        for size in sizes:
            begin = time.perf_counter()
            made = [
                _start(workload, lr * (0.6 + 0.8 * i / size), i % 8, options) for i in range(size)
            ]
            pack, states = PairedPack([run for run, _ in made]), [state for _, state in made]
            before = pack.runs[0].program.compile_s
            progress(f"compiles a pack of {size}")
            try:
                states, _ = pack.advance(states, args.chunk)  # compiles, and grows k if need be

                def chunk(pack: Any = pack, states: Any = states) -> Any:
                    return pack.advance(states, args.chunk)

                chunk()
                timing = repeat(chunk, args.repetitions)
                program_gb = pack.memory_bytes(states) / 1e9
            except Exception as error:  # out of memory, most likely: the next size would be as well
                yield f"{name}, {size} members: {type(error).__name__}: {str(error)[:200]}"
                break
            rates = sorted(size * args.chunk / s for s in timing.wall_s)
            rows.append(
                (
                    name,
                    size,
                    rates[-1],
                    f"{number(rates[0])} to {number(rates[-1])}",
                    rates[-1] / (rows[0][2] if rows else rates[-1]),
                    pack.runs[0].program.compile_s - before,
                    program_gb,
                    peak_gb(),
                )
            )
            print(f"({name}, {size} members: {time.perf_counter() - begin:.0f} s)", flush=True)
        if rows:
            yield table(header, rows)


def parts(args: argparse.Namespace) -> Iterator[str]:
    """Say where the time of a central step goes, at 0 and 1 critical directions."""
    # on a CPU other work on the machine blurs wall time; on a GPU the processor only waits
    clock: Clock = "processor" if jax.default_backend() == "cpu" else "wall"
    for name in ("digits_mlp", *args.workloads[:1]):
        workload, lr, _ = _network(name, args.small)
        problem: Problem = workload.problem
        flow = CentralFlow(problem, workload.init(0), PairedOptions())
        at = flow.start(lr, WARMUP)
        for wanted in (0, 1):
            at = flow.walk_to(at, wanted)
            yield f"{name}: " + parts_table(flow, at, args.repetitions, clock)


SECTIONS: dict[str, Callable[[argparse.Namespace], Iterator[str]]] = {
    "device": device,
    "correctness": correctness,
    "speed": speed,
    "packs": packs,
    "parts": parts,
}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=WORKLOADS)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--chunk", type=int, help="optimizer steps in a timed call (20; small: 4)")
    parser.add_argument("--small", action="store_true", help="`cpu` scale, few cases")
    parser.add_argument("--out", type=Path, help="write the report to this file too")
    args = parser.parse_args()
    args.chunk = args.chunk or (4 if args.small else 20)
    return args


def main() -> None:
    """Run the sections; one that fails does not stop the others."""
    args = parse()

    def put(text: str) -> None:
        print(text, end="\n\n", flush=True)
        if args.out:
            with args.out.open("a", encoding="utf-8") as file:
                file.write(text + "\n\n")

    for name in args.only:
        begin = time.perf_counter()
        put(f"## {name}")
        try:
            for text in SECTIONS[name](args):
                put(text)
        except Exception:
            put(f"failed:\n\n```\n{traceback.format_exc()[-2000:]}```")
        put(f"({name}: {time.perf_counter() - begin:.0f} s)")


if __name__ == "__main__":
    main()
