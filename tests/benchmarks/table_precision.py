"""Table `precision`: error of the central flow's integrator against what it costs.

Error is against 64 substeps in float64. Beside Euler with n substeps stands Richardson's
extrapolation 2 y(2n) - y(n) of two Euler runs, second order, which costs what 3n substeps do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cflows_ray import GradientDescent, Problem, RMSProp, run_paired
from cflows_ray.rules import UpdateRule
from tests.benchmarks.measuring import Clock, interleaved, number, table
from tests.benchmarks.unit_costs import DerivativeCosts, DerivativeMeter, flat_problem
from tests.networks import NETWORKS

REFERENCE_SUBSTEPS, WARMUP = 64, 5
SUBSTEPS = (1, 2, 3, 4, 6, 8, 12)
EXTRAPOLATED = (1, 2, 4)


class Case(NamedTuple):
    """A network, a rule, and how many optimizer steps."""

    network: str
    rule: UpdateRule
    steps: int


CASES = (
    Case("tanh_regression", GradientDescent(0.8), 300),
    Case("deep_linear", RMSProp(0.01, beta2=0.95), 300),
)
TINY = (Case("attention", GradientDescent(0.5), 30),)


@dataclass(frozen=True)
class Path:
    """A central path: last point, predicted loss of each row, and what it cost."""

    params: np.ndarray
    predicted: np.ndarray
    counts: np.ndarray
    num_critical: np.ndarray
    status: str
    start: np.ndarray

    def error(self, truth: Path) -> tuple[float, float]:
        """Return relative error of the last displacement and mean error of the predicted loss."""
        travelled = np.linalg.norm(truth.params - truth.start)
        end = np.linalg.norm(self.params - truth.params) / travelled
        gap = np.abs(self.predicted - truth.predicted) / np.abs(truth.predicted)
        return float(end), float(np.mean(gap))


def extrapolate(coarse: Path, fine: Path) -> Path:
    """Return Richardson's extrapolation of runs with n and 2n substeps; its cost is both runs'."""
    return Path(
        2 * fine.params - coarse.params,
        2 * fine.predicted - coarse.predicted,
        fine.counts + coarse.counts,
        fine.num_critical,
        fine.status,
        fine.start,
    )


def integrate(case: Case, substeps: int, dtype: str) -> tuple[Path, Callable[[], Any]]:
    """Run the central flow; return its path and a call that runs it again, for timing."""
    loss, params = _network(case.network)

    def again(flows: tuple[str, ...] = ("central",)) -> Any:
        return run_paired(
            loss,
            params,
            case.rule,
            steps=case.steps,
            flows=flows,
            warmup=WARMUP,
            substeps=substeps,
            dtype=dtype,
        )

    result = again()
    rows = result.steps[result.steps.process == "central"]
    last = rows.iloc[-1]
    columns = ["num_gradients", "num_hvps", "num_third_derivatives"]
    status = ", ".join(f"{n} {s}" for s, n in rows.status.value_counts().items() if s != "ok")
    path = Path(
        np.asarray(result.final["central"], float),
        rows.train_loss_predicted.to_numpy(float),
        last[columns].to_numpy(float),
        rows.num_critical.to_numpy(float),
        status or "ok",
        np.asarray(params, float),
    )
    return path, again


_NETWORKS: dict[str, Any] = {}


def _network(name: str) -> Any:
    """Return a network's loss and parameters, the same objects each time."""
    return _NETWORKS.setdefault(name, NETWORKS[name]())


def precision(repetitions: int, clock: Clock, tiny: bool = False) -> Iterator[str]:
    """Yield a table for each network."""
    yield (
        f"Reference: {REFERENCE_SUBSTEPS} substeps, float64. Runs: float32. Error of the end: "
        "distance to the reference's last point over the distance that it has come; of the path: "
        "mean relative error of the predicted loss. Cost: gradients, from counts and measured "
        f"derivatives; seconds ({clock} clock) are of optimizer and central flow, minus those of "
        "the optimizer alone. Beside an extrapolation: Euler's "
        "two errors at the same cost, interpolated."
    )
    for case in TINY if tiny else CASES:
        yield from _table(case, repetitions, clock, (1, 2, 4) if tiny else SUBSTEPS)


def _table(case: Case, repetitions: int, clock: Clock, substeps: tuple[int, ...]) -> Iterator[str]:
    truth = integrate(case, REFERENCE_SUBSTEPS, "float64")[0]
    loss, params = _network(case.network)
    flat = flat_problem(Problem(lambda p, _: loss(p)), params)
    costs = DerivativeMeter(flat).costs(clock=clock, repetitions=repetitions)
    runs = {n: integrate(case, n, "float32") for n in substeps}
    calls: dict[str, Callable[[], Any]] = {str(n): again for n, (_, again) in runs.items()}
    alone = next(iter(runs.values()))[1]
    alone(flows=())  # type: ignore[call-arg]
    calls["optimizer"] = lambda: alone(flows=())  # type: ignore[call-arg]
    times = interleaved(calls, repetitions)
    base = times["optimizer"].best_s(clock)
    euler = {n: (path, times[str(n)].best_s(clock) - base) for n, (path, _) in runs.items()}
    critical = truth.num_critical
    yield (
        f"{case.network}, {type(case.rule).__name__} at {case.rule.lr:g}, {case.steps} steps; "
        f"critical directions up to {critical.max():.0f}, in {100 * np.mean(critical > 0):.0f}% of "
        f"the rows; {costs}."
    )
    rows = [_row(f"Euler {n}", path, s, truth, costs, None) for n, (path, s) in euler.items()]
    for n in EXTRAPOLATED:
        if n in euler and 2 * n in euler:
            path = extrapolate(euler[n][0], euler[2 * n][0])
            seconds = euler[n][1] + euler[2 * n][1]
            rows.append(_row(f"extrapolated {n} and {2 * n}", path, seconds, truth, costs, euler))
    header = (
        "scheme | error of the end | error of the path | cost in gradients | s | gradients | "
        "products | third derivatives | Euler's errors at that cost | status"
    )
    yield table(header, rows)


def _row(
    label: str,
    path: Path,
    seconds: float,
    truth: Path,
    costs: DerivativeCosts,
    euler: dict[int, tuple[Path, float]] | None,
) -> tuple:
    end, along = path.error(truth)
    cost = cost_in_gradients(path, costs)
    equal = "-"
    if euler is not None:
        at = [cost_in_gradients(p, costs) for p, _ in euler.values()]
        errors = np.array([p.error(truth) for p, _ in euler.values()])
        equal = " and ".join(f"{interpolate(cost, at, errors[:, i]):.1e}" for i in range(2))
    counts = (int(x) for x in path.counts)
    return label, f"{end:.1e}", f"{along:.1e}", number(cost), seconds, *counts, equal, path.status


def cost_in_gradients(path: Path, costs: DerivativeCosts) -> float:
    """Return what a path's derivatives cost, in gradients."""
    linearizations, products, third = path.counts
    return costs.seconds(linearizations, 0, products, third) / costs.gradient_s


def interpolate(cost: float, costs: list[float], errors: np.ndarray) -> float:
    """Return Euler's error at a cost, linear between its runs on logarithmic axes."""
    return float(np.exp(np.interp(np.log(cost), np.log(costs), np.log(errors))))
