"""Table `precision`: error of the central flow's schemes against what they cost.

Error is against 64 substeps of the second-order scheme in float64. As many substeps take the same
derivatives in both fixed schemes; the second-order one solves more complementarity problems. The
adaptive scheme stands with its tolerance in place of the substeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cflows_ray import Adam, GradientDescent, Problem, RMSProp, run_paired
from cflows_ray.rules import UpdateRule
from tests.benchmarks.measuring import Clock, interleaved, number, table
from tests.benchmarks.table_steps import predicted
from tests.benchmarks.unit_costs import DerivativeCosts, DerivativeMeter, flat_problem
from tests.networks import NETWORKS

WARMUP, SETTLE_ROWS = 5, 20


class Scheme(NamedTuple):
    """How the central flow is integrated."""

    name: str
    substeps: int = 4
    tolerance: float = 1e-2

    def __str__(self) -> str:
        return f"{self.name} {self.tolerance if self.name == 'adaptive' else self.substeps:g}"

    def settings(self) -> dict[str, Any]:
        """Return it as settings of a run."""
        return {"scheme": self.name, "substeps": self.substeps, "tolerance": self.tolerance}


REFERENCE = Scheme("extrapolated", 64)
SCHEMES = (
    *(Scheme("euler", n) for n in (1, 2, 4, 8, 16)),
    *(Scheme("extrapolated", n) for n in (2, 4, 8)),
    *(Scheme("adaptive", tolerance=x) for x in (3e-2, 1e-2, 3e-3, 1e-3)),
)


class Case(NamedTuple):
    """A network, a rule, and how many optimizer steps."""

    network: str
    rule: UpdateRule
    steps: int


CASES = (
    Case("tanh_regression", GradientDescent(0.8), 300),
    Case("deep_linear", RMSProp(0.01, beta2=0.95), 300),
    Case("tanh_regression", Adam(0.08, beta2=0.99), 150),
    Case("attention", GradientDescent(1.0), 300),  # stiff: no scheme is stable with 4 substeps
)
TINY = (Case("attention", GradientDescent(0.5), 30),)


@dataclass(frozen=True)
class CentralPath:
    """A central path: last point, its rows, and what it cost."""

    params: np.ndarray
    predicted: np.ndarray
    sharpness: np.ndarray
    num_critical: np.ndarray
    counts: np.ndarray
    distance: float
    status: str
    start: np.ndarray

    def error(self, truth: CentralPath) -> tuple[float, float]:
        """Return relative error of the last displacement and mean error of the predicted loss."""
        travelled = np.linalg.norm(truth.params - truth.start)
        end = np.linalg.norm(self.params - truth.params) / travelled
        gap = np.abs(self.predicted - truth.predicted) / np.abs(truth.predicted)
        return float(end), float(np.mean(gap))

    def off_the_edge(self) -> float:
        """Return the largest distance of the effective sharpness from 2 once settled there."""
        at_edge = self.sharpness[self.num_critical > 0][SETTLE_ROWS:]
        return float(np.max(np.abs(at_edge - 2.0), initial=0.0))


def integrate(case: Case, scheme: Scheme, dtype: str) -> tuple[CentralPath, Callable[[], Any]]:
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
            dtype=dtype,
            **scheme.settings(),
        )

    result = again()
    rows = result.steps[result.steps.process == "central"]
    last = rows.iloc[-1]
    columns = ["num_gradients", "num_hvps", "num_third_derivatives"]
    status = ", ".join(f"{n} {s}" for s, n in rows.status.value_counts().items() if s != "ok")
    path = CentralPath(
        np.asarray(result.final["central"], float),
        rows.train_loss_predicted.to_numpy(float),
        rows.effective_sharpness.to_numpy(float),
        rows.num_critical.to_numpy(float),
        last[columns].to_numpy(float),
        float(last.distance_to_midpoint / last.distance_from_start),
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
        f"Reference: {REFERENCE.substeps} substeps of the second-order scheme, float64. Runs: "
        "float32. Error at the end: distance to the reference's final point, divided by the "
        "distance the reference travelled; of the path: mean relative error of the predicted loss. "
        "Off the edge: the largest distance of the effective sharpness from 2 while there are "
        "critical directions, "
        f"the first {SETTLE_ROWS} rows left out; a scheme that is stable stays below 0.01. Cost: "
        f"gradients, from counts and measured derivatives; seconds ({clock} clock) are of "
        "optimizer and central flow, minus those of the optimizer alone. From the optimizer: "
        "distance to its midpoints at the end, over that from the start."
    )
    for case in TINY if tiny else CASES:
        yield from _table(case, repetitions, clock, SCHEMES[1:3] if tiny else SCHEMES)


def _table(
    case: Case, repetitions: int, clock: Clock, schemes: tuple[Scheme, ...]
) -> Iterator[str]:
    truth = integrate(case, REFERENCE, "float64")[0]
    loss, params = _network(case.network)
    flat = flat_problem(Problem(lambda p, _: loss(p)), params)
    costs = DerivativeMeter(flat).costs(clock=clock, repetitions=repetitions)
    runs = {scheme: integrate(case, scheme, "float32") for scheme in schemes}
    calls: dict[str, Callable[[], Any]] = {
        str(scheme): again for scheme, (_, again) in runs.items()
    }
    alone: Any = next(iter(runs.values()))[1]
    alone(flows=())
    calls["optimizer"] = lambda: alone(flows=())
    times = interleaved(calls, repetitions)
    base = times["optimizer"].best_s(clock)
    critical = truth.num_critical
    yield (
        f"{case.network}, {type(case.rule).__name__} at {case.rule.lr:g}, {case.steps} steps; "
        f"critical directions up to {critical.max():.0f}, in {100 * np.mean(critical > 0):.0f}% of "
        f"the rows; reference off the edge {truth.off_the_edge():.1g}, from the optimizer "
        f"{100 * truth.distance:.3g}%; {costs}."
    )
    header = (
        "scheme and substeps, or tolerance | error at the end | error of the path | off the edge | "
        "from the optimizer | cost in gradients | s | gradients | products | third derivatives | "
        "status"
    )
    rows = []
    for scheme, (path, _) in runs.items():
        seconds = times[str(scheme)].best_s(clock) - base
        rows.append(_row(scheme, path, seconds, truth, costs))
    yield table(header, rows)


def _row(
    scheme: Scheme, path: CentralPath, seconds: float, truth: CentralPath, costs: DerivativeCosts
) -> tuple:
    end, along = path.error(truth)
    cost = predicted(path.counts, costs) / costs.gradient_s
    counts = (int(x) for x in path.counts)
    errors = f"{end:.1e}", f"{along:.1e}", f"{path.off_the_edge():.1e}"
    distance = f"{100 * path.distance:.3g}%"
    return str(scheme), *errors, distance, number(cost), seconds, *counts, path.status
