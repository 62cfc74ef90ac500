"""Table `steps`: what a central step costs in gradients, and what it must cost at the least."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cflows_ray.paired.run import PairedOptions
from cflows_ray.workloads import build_workload
from tests.benchmarks.central_steps import At, CentralFlow
from tests.benchmarks.measuring import Clock, Timing, interleaved, number, table
from tests.benchmarks.problems import DATA, LEARNING_RATES, has_cifar10
from tests.benchmarks.unit_costs import DerivativeCosts, DerivativeMeter

WORKLOADS = ("cnn_cifar10", "vit_cifar10", "transformer_sorting")
TIMED_STEPS, WARMUP, SUBSTEPS, NUM_EIGS = 4, 40, 4, 4
TRACKED_FROM = PairedOptions().tracking_threshold

HEADER = (
    "workload | critical | k | step in gradients | spread | gradients | products | "
    "third derivatives | predicted from counts | remainder | least counts | "
    "least in gradients"
)


def steps(
    repetitions: int, clock: Clock, only: Sequence[str] = (), critical: Sequence[int] = (0, 1, 3)
) -> Iterator[str]:
    """Yield a table for each workload."""
    yield (
        f"A step of the central flow ({SUBSTEPS} substeps, float32, {clock} clock) over one "
        "gradient at the same point, both measured in the same run. Counts are a step's mean over "
        f"{TIMED_STEPS} steps. Least: {SUBSTEPS} gradients; products that refresh k pairs once and "
        "the rising ones (above 1.5) in each other substep; c(c+1)/2 third derivatives a substep."
    )
    for name in only or WORKLOADS:
        if "cifar10" in name and not has_cifar10():
            yield f"{name}: skipped, set {DATA} to the folder of CIFAR-10's binary files."
            continue
        yield from _workload(name, repetitions, clock, critical)


def _workload(name: str, repetitions: int, clock: Clock, critical: Sequence[int]) -> Iterator[str]:
    workload = build_workload(name, scale="cpu")
    options = PairedOptions(num_eigs=NUM_EIGS, substeps=SUBSTEPS)
    flow = CentralFlow(workload.problem, workload.init(0), options)
    lr = LEARNING_RATES["cpu"][name]
    at = flow.start(lr, WARMUP)
    meter = DerivativeMeter(flow.flat, NUM_EIGS)
    rows = []
    for wanted in critical:
        at = flow.walk_to(at, wanted)
        rows.append((name, *_row(flow, meter, at, repetitions, clock)))
    yield table(HEADER, rows)
    costs = meter.costs(at.state.params, repetitions, clock)
    yield f"{name}, d = {flow.flat.params.size:,}: {costs}."


def _row(
    flow: CentralFlow, meter: DerivativeMeter, at: At, repetitions: int, clock: Clock
) -> tuple:
    """Measure the steps that follow a state."""
    path = _path(flow, at)
    if path[-1].num_eigs != at.num_eigs:  # k grew: measure where it has settled
        path = _path(flow, path[-1])
    at = path[0]
    costs = meter.costs(at.state.params, repetitions, clock)
    timing = interleaved({"steps": lambda: flow.call(at, TIMED_STEPS)}, repetitions)["steps"]
    counts = (path[-1].counts - path[0].counts) / TIMED_STEPS
    seen = [int(p.num_critical) for p in path[1:]]
    least = least_counts(path)
    return (
        f"{min(seen)}" if min(seen) == max(seen) else f"{min(seen)} to {max(seen)}",
        at.num_eigs,
        *_in_gradients(timing, costs, clock),
        *(number(x) for x in counts),
        predicted(counts, costs) / costs.gradient_s,
        timing.best_s(clock) / TIMED_STEPS / costs.gradient_s
        - predicted(counts, costs) / costs.gradient_s,
        ", ".join(number(x) for x in least),
        predicted(least, costs) / costs.gradient_s,
    )


def _path(flow: CentralFlow, at: At) -> list[At]:
    path = [at]
    for _ in range(TIMED_STEPS):
        path.append(flow.advance(path[-1], 1))
    return path


def _in_gradients(timing: Timing, costs: DerivativeCosts, clock: Clock) -> tuple[float, str]:
    unit = TIMED_STEPS * costs.gradient_s
    return timing.best_s(clock) / unit, timing.spread(clock, unit)


def predicted(counts: np.ndarray, costs: DerivativeCosts) -> float:
    """Return the seconds of a step's derivatives; every gradient of the flow is linearized."""
    linearizations, products, third = counts
    return costs.seconds(linearizations, 0, products, third)


def least_counts(path: Sequence[At]) -> np.ndarray:
    """Return the mean counts that steps must have: see `steps`."""
    totals = np.zeros(3)
    for at in path[1:]:
        assert at.record is not None
        k, c = at.num_eigs, at.num_critical
        rising = int(np.sum(np.asarray(at.record.effective_eigs) > TRACKED_FROM))
        totals += SUBSTEPS, k + (SUBSTEPS - 1) * rising, SUBSTEPS * c * (c + 1) / 2
    return totals / (len(path) - 1)
