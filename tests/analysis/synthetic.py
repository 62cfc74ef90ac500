"""Results folders whose true errors are known exactly.

The optimizer moves away from its start at constant speed and every oscillation alternates in sign,
so its time average is known; a flow is wrong by stated factors. `make_run` says what each metric
must come out as.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cflows_ray.schema import arrow_schema

OF_RULES = {"beta2": pa.float64(), "eps": pa.float64(), "bias_correction": pa.bool_()}
SPEED = 0.01  # distance that the optimizer covers in a step
LOSS, GRAD, SHARPNESS = 0.5, 2.0, 2.0
VARIANCES = (0.03, 0.004)


def plain_schema(table: str) -> pa.Schema:
    """Make the schema of a table as in files from before fields said what they are."""
    fields = [
        field.with_metadata({k: v for k, v in (field.metadata or {}).items() if k == b"unit"})
        for field in arrow_schema(table)
        if field.name not in OF_RULES
    ]
    if table == "runs":
        place = [field.name for field in fields].index("lr") + 1
        fields[place:place] = [pa.field(name, kind) for name, kind in OF_RULES.items()]
    return pa.schema(fields, metadata=arrow_schema(table).metadata)


@dataclass(frozen=True)
class FlowTruth:
    """How wrong a flow is.

    `distance`: relative distance to the optimizer, from step `distance_from` on (before: 1%),
    but 50% from the first to before the second step of `excursion`.
    The midpoint distance is `midpoint` times it. `loss`, `grad`: error of the logarithm;
    `sharpness`: absolute error; `nu`: relative error, on average: it rises; `variance`: predicted
    over measured, None if the flow predicts none; `stop`: the step of its last row, and `ending`
    the status of that row, whose loss is infinite if it is "diverged"; `trouble`: statuses of its
    first rows, and `doubts` those of its column `doubt`.
    """

    distance: float = 0.02
    distance_from: int = 0
    excursion: tuple[int, int] = (0, 0)
    loss: float = 0.01
    grad: float = 0.03
    sharpness: float = 0.04
    nu: float = 0.05
    variance: float | None = None
    stop: int | None = None
    ending: str = "stopped"
    midpoint: float = 0.5
    trouble: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


CENTRAL = FlowTruth(variance=1.25)
STABLE = FlowTruth(distance=0.25, loss=0.3, grad=0.9, sharpness=1.5, nu=0.4, midpoint=0.8)


@dataclass(frozen=True)
class RunTruth:
    """One run: its configuration, how it ended, and how wrong each flow was.

    `loss`: of the optimizer, on average; `overflow`: that in the last row if the run diverged, NaN
    for null.
    """

    run_id: str
    rule: str = "gradient_descent"
    lr: float = 0.01
    seed: int = 0
    workload: str = "digits_mlp"
    criterion: str = "mse"
    beta2: float | None = None
    steps: int = 600
    record_every: int = 1
    status: str = "finished"
    status_detail: str | None = None
    substeps: int = 4
    scheme: str = "euler"
    workload_options: str = "{}"
    edge_from: int = 0
    overflow: float = np.inf
    loss: float = LOSS
    flows: dict[str, FlowTruth] = field(
        default_factory=lambda: {"central": CENTRAL, "stable": STABLE}
    )


def example_runs() -> list[RunTruth]:
    """Two rules, two learning rates of the first, two seeds each; seed 1 is twice as wrong."""
    runs = []
    for rule, lrs, beta2 in (("gradient_descent", (0.01, 0.02), None), ("rmsprop", (0.001,), 0.99)):
        for lr in lrs:
            for seed in (0, 1):
                central = replace(CENTRAL, distance=CENTRAL.distance * (1 + seed))
                stable = replace(STABLE, distance=STABLE.distance * (1 + seed))
                runs.append(
                    RunTruth(
                        run_id=f"{rule[:2]}{lr:g}s{seed}".replace(".", ""),
                        rule=rule,
                        lr=lr,
                        seed=seed,
                        beta2=beta2,
                        flows={"central": central, "stable": stable},
                    )
                )
    return runs


def write_sweep(
    root: Path, runs: Iterable[RunTruth], *, name: str = "example", parts: int = 3
) -> Path:
    """Write a sweep's folder; each run's steps in `parts` files. Returns the folder."""
    folder = Path(root) / name
    (folder / "runs").mkdir(parents=True)
    (folder / "steps").mkdir()
    for run in runs:
        write_run(folder, run, sweep=name, parts=parts)
    (folder / "sweep.json").write_text(json.dumps({"name": name, "commit": "abc1234"}))
    return folder


def write_run(folder: Path, run: RunTruth, *, sweep: str, parts: int = 3) -> None:
    row = runs_row(run, sweep)
    pq.write_table(
        pa.Table.from_pylist([row], schema=plain_schema("runs")),
        folder / "runs" / f"{run.run_id}.parquet",
    )
    steps = steps_table(run)
    place = folder / "steps" / run.run_id
    place.mkdir()
    step = steps["step"].to_numpy()
    bounds = np.linspace(0, step.max() + 1, parts + 1).astype(int)
    for first, last in pairwise(bounds):
        part = steps.filter(pa.array((step >= first) & (step < last)))
        pq.write_table(part, place / f"part-{first:08d}.parquet")


def runs_row(run: RunTruth, sweep: str) -> dict[str, object]:
    adaptive = run.rule != "gradient_descent"
    return {
        "run_id": run.run_id, "sweep": sweep, "workload": run.workload,
        "workload_options": run.workload_options,
        "criterion": run.criterion, "rule": run.rule, "lr": run.lr,
        "beta2": run.beta2, "eps": 1e-8 if adaptive else None,
        "bias_correction": False if adaptive else None, "schedule": "constant", "seed": run.seed,
        "flows": ",".join(run.flows), "warmup": 15, "steps": run.steps, "substeps": run.substeps,
        "scheme": run.scheme, "num_eigs": 4, "record_every": run.record_every, "dtype": "float32",
        "num_params": 433, "status": run.status, "status_detail": run.status_detail,
        "wall_s": 6.5, "compile_s": 2.5,
        "device": "cpu", "versions": '{"jax": "0.10.2"}', "commit": "abc1234",
    }  # fmt: skip


def steps_table(run: RunTruth) -> pa.Table:
    """Make the `steps` table of a run, in the order (step, process)."""
    parts = [_discrete(run), _midpoint(run)]
    parts += [_flow(run, name, truth) for name, truth in run.flows.items()]
    table = pa.concat_tables(parts)
    return table.take(np.argsort(table["step"].to_numpy(), kind="stable"))


def _discrete(run: RunTruth) -> pa.Table:
    t = np.arange(0, run.steps + 1, run.record_every)
    zigzag = np.where(t % 2 == 0, 1.0, -1.0)
    status = ["ok"] * len(t)
    loss, grad = run.loss * (1 + 0.3 * zigzag), GRAD * (1 + 0.5 * zigzag)
    if run.status == "diverged":
        status[-1] = "diverged"
        loss[-1], grad[-1] = run.overflow, run.overflow
    return _table(
        run, "discrete", t, status,
        train_loss=loss, grad_norm_sq=grad,
        effective_sharpness=_sharpness(run, t) + 0.1 * zigzag,
        effective_eigs=np.stack([_sharpness(run, t) + 0.1 * zigzag, 0 * t + 1.0], axis=1),
        distance_from_start=SPEED * t, train_accuracy=0.8 + 0.05 * zigzag,
        test_loss=LOSS * (1.2 + 0.3 * zigzag), test_accuracy=0.7 + 0.05 * zigzag,
    )  # fmt: skip


def _midpoint(run: RunTruth) -> pa.Table:
    t = np.arange(run.record_every, run.steps, run.record_every)
    return _table(run, "midpoint", t, ["ok"] * len(t), train_loss=0 * t + LOSS)


def _flow(run: RunTruth, name: str, truth: FlowTruth) -> pa.Table:
    t = np.arange(0, run.steps + 1, run.record_every)
    status = ["ok"] * len(t)
    if truth.stop is not None:
        t = t[t <= truth.stop]
        status = ["ok"] * (len(t) - 1) + [truth.ending]
    status[: len(truth.trouble)] = truth.trouble
    one = np.ones(len(t))
    zigzag = np.where(t % 2 == 0, 1.0, -1.0)
    relative = np.where(t >= truth.distance_from, truth.distance, 0.01)
    relative = np.where((t >= truth.excursion[0]) & (t < truth.excursion[1]), 0.5, relative)
    columns: dict[str, np.ndarray] = {
        "train_loss": run.loss * one,
        "train_loss_predicted": run.loss * np.exp(truth.loss) * one,
        "grad_norm_sq": GRAD * one, "grad_norm_sq_predicted": GRAD * np.exp(truth.grad) * one,
        "effective_sharpness": _sharpness(run, t) + truth.sharpness,
        "effective_eigs": np.stack([_sharpness(run, t) + truth.sharpness, one], axis=1),
        "distance_to_discrete": relative * SPEED * t,
        "distance_to_midpoint": truth.midpoint * relative * SPEED * t,
        "distance_from_start": SPEED * t, "output_distance": 0.1 * one,
        "train_accuracy": 0.82 * one, "test_loss": LOSS * 1.2 * one, "test_accuracy": 0.73 * one,
        "eig_residual": 1e-6 * one,
    }  # fmt: skip
    if status[-1] == "diverged":
        for column in ("train_loss", "train_loss_predicted"):
            columns[column][-1] = np.inf
    if run.rule != "gradient_descent":
        columns["nu_rel_error"] = truth.nu * (0.5 + t / run.steps)
    if truth.variance is not None:
        measured = np.outer(np.exp(t / 2000.0), VARIANCES)
        columns["displacement_sq"] = measured * (1 + 0.4 * zigzag[:, None])
        columns["sigma_eigs"] = truth.variance * measured
        columns["num_critical"] = 2 + np.sign(t - run.steps / 2)  # 1, then 3
        columns["sigma_trace"] = truth.variance * measured.sum(axis=1)
    doubt = [*truth.doubts, *[None] * len(t)][: len(t)]
    return _table(run, name, t, status, doubt=np.array(doubt, dtype=object), **columns)


def _sharpness(run: RunTruth, t: np.ndarray) -> np.ndarray:
    """1 before the edge of stability, 2 from then on."""
    return np.where(t >= run.edge_from, SHARPNESS, 1.0)


def _table(
    run: RunTruth, process: str, t: np.ndarray, status: Sequence[str], **columns: np.ndarray
) -> pa.Table:
    n = len(t)
    arrays = []
    given = {"run_id": [run.run_id] * n, "step": t, "process": [process] * n, "status": status}
    for column in arrow_schema("steps"):
        value = given.get(column.name, columns.get(column.name))
        if value is None:
            arrays.append(pa.nulls(n, column.type))
        elif np.ndim(value) == 2:
            width = value.shape[1]
            offsets = np.arange(0, n * width + 1, width, dtype=np.int32)
            arrays.append(pa.ListArray.from_arrays(offsets, np.ravel(value)))
        else:
            arrays.append(pa.array(value, from_pandas=True).cast(column.type))
    return pa.Table.from_arrays(arrays, schema=plain_schema("steps"))


def study_runs(*, seeds: int = 5, steps: int = 300) -> list[RunTruth]:
    """Three rules, three learning rates, with errors that grow with lr and vary by seed.

    One run diverged, one failed, the stable flow stopped in one, and a slow run is still predicted.
    """
    rng = np.random.default_rng(0)
    runs = []
    for rule in ("gradient_descent", "rmsprop", "scalar_rmsprop"):
        for lr in (0.01, 0.02, 0.04):
            for seed in range(seeds):
                wrong = np.exp(0.3 * rng.normal(size=4)) * lr / 0.02
                central = replace(
                    CENTRAL, distance=0.06 * wrong[0], loss=0.01 * wrong[1],
                    distance_from=int(60 * wrong[3]), variance=1.1,
                )  # fmt: skip
                stable = replace(STABLE, distance=0.4 * wrong[2], distance_from=20)
                run = RunTruth(
                    run_id=f"{rule}-{lr:g}-{seed}", rule=rule, lr=lr, seed=seed, steps=steps,
                    beta2=None if rule == "gradient_descent" else 0.99, edge_from=80,
                    flows={"central": central, "stable": stable},
                )  # fmt: skip
                runs.append(run)
    runs[-1] = replace(
        runs[-1], status="diverged", status_detail="loss 1e9 passed 1000 times its start"
    )
    runs[-2] = replace(runs[-2], status="failed", status_detail="node lost <three> times")
    flows = runs[0].flows
    runs[0] = replace(runs[0], flows={**flows, "stable": replace(flows["stable"], stop=150)})
    return runs
