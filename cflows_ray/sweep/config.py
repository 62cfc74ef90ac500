"""What a run and a sweep are: frozen dataclasses, checked when they are made, and the run id.

`RunConfig` is everything that decides a run's numbers, and its hash is the run id. `SweepConfig`
is a list of grids over learning rates and seeds. `Execution` says how a sweep is carried out
(chunks, storage, resources) and never enters the run id: the same sweep on a laptop and on a
cluster has the same runs.

Nothing here imports JAX or Ray, so that a mistake is reported at once, before anything is
compiled or scheduled. Every error is a `ConfigError` of one line that names the field, the value
and what is allowed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from cflows_ray.checks import (
    ConfigError,
    boolean,
    check_scheme,
    decay_rate,
    integer,
    number,
    one_of,
    positive,
    require,
    seed_number,
    sequence,
    stable_average,
)
from cflows_ray.schedules import parse_schedule
from cflows_ray.schema import absent_values
from cflows_ray.workloads import check_workload

# The names and parameters of the plug-ins, repeated here because their own modules import JAX;
# a test compares these with the registries.
RULE_PARAMETERS: dict[str, tuple[str, ...]] = {
    "gradient_descent": (),
    "scalar_rmsprop": ("beta2", "eps", "bias_correction"),
    "rmsprop": ("beta2", "eps", "bias_correction"),
}
RULE_DEFAULTS: dict[str, Any] = {"beta2": 0.99, "eps": 1e-8, "bias_correction": False}
FLOWS: tuple[str, ...] = ("midpoint", "stable", "central")
CRITERIA: tuple[str, ...] = ("mse", "cross_entropy")
DTYPES: tuple[str, ...] = ("float32", "float64")

__all__ = ["ConfigError", "Execution", "Grid", "RunConfig", "SweepConfig"]

# Settings of a run that a sweep sets for all its grids and a grid may set for itself.
SHARED = ("steps", "warmup", "substeps", "scheme", "num_eigs", "record_every", "flows", "dtype")


def _check_flows(value: Any) -> tuple[str, ...]:
    """Return the flows as a tuple of known names, in the registry's order.

    The order does not change a run, so it must not change the run id.
    """
    names = sequence("flows", value)
    for name in names:
        one_of("flows", name, FLOWS)
    return tuple(name for name in FLOWS if name in names)


def _json_options(options: Any) -> dict[str, Any]:
    """Return a workload's options as plain JSON values, keys sorted."""
    require(isinstance(options, Mapping), "workload_options", "a mapping", options)
    try:
        return dict(json.loads(json.dumps(options, sort_keys=True, allow_nan=False)))
    except (TypeError, ValueError):
        raise ConfigError(
            f"workload_options must be numbers, words or lists of them, got {options!r}"
        ) from None


@dataclass(frozen=True)
class RunConfig:
    """One run: everything that decides its numbers.

    `beta2`, `eps` and `bias_correction` left out (None) take the rule's defaults; they must be
    left out for a rule that has none. Raises `ConfigError` for any value that is not allowed.

    Example:
        >>> run = RunConfig(workload="saddle_2d", rule="gradient_descent", lr=0.2, steps=50)
        >>> len(run.run_id)
        16
    """

    workload: str
    rule: str
    lr: float
    criterion: str = "mse"
    workload_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    beta2: float | None = None
    eps: float | None = None
    bias_correction: bool | None = None
    schedule: str = "constant"
    seed: int = 0
    flows: tuple[str, ...] = FLOWS
    warmup: int = 15
    steps: int = 1000
    substeps: int = 4
    scheme: str = "euler"
    num_eigs: int = 4
    record_every: int = 1
    dtype: str = "float32"

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        one_of("criterion", self.criterion, CRITERIA)
        put("workload_options", _json_options(self.workload_options))
        check_workload(self.workload, self.criterion, self.workload_options)
        one_of("rule", self.rule, RULE_PARAMETERS)
        put("lr", positive("lr", self.lr))
        for name in RULE_DEFAULTS:
            put(name, self._rule_parameter(name))
        parse_schedule(self.schedule)
        put("seed", seed_number("seed", self.seed))
        put("flows", _check_flows(self.flows))
        put("warmup", integer("warmup", self.warmup, 0))
        for name in ("steps", "substeps", "num_eigs", "record_every"):
            put(name, integer(name, getattr(self, name), 1))
        check_scheme(self.scheme, self.substeps)
        if self.beta2 is not None:
            stable_average(self.beta2, self.substeps, self.scheme)
        one_of("dtype", self.dtype, DTYPES)

    def _rule_parameter(self, name: str) -> float | bool | None:
        """Return a checked parameter of the rule, or its default; None if the rule has none."""
        value = getattr(self, name)
        if name not in RULE_PARAMETERS[self.rule]:
            require(value is None, name, f"left out for {self.rule}", value)
            return None
        if value is None:
            return RULE_DEFAULTS[name]
        if name == "bias_correction":
            return boolean(name, value)
        return decay_rate(name, value) if name == "beta2" else positive(name, value)

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as plain JSON values; `RunConfig(**...)` is the inverse."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            **values,
            "flows": list(self.flows),
            "workload_options": dict(self.workload_options),
        }

    @functools.cached_property
    def run_id(self) -> str:
        """Hash of the whole configuration: 16 hexadecimal digits."""
        # a field added later is left out at its first value: older runs keep their ids
        added = absent_values("runs")
        values = {k: v for k, v in self.to_json().items() if v != added.get(k, ...)}
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def kind(self) -> str:
        """What decides the compiled program: the configuration without its traced numbers."""
        traced = ("lr", "beta2", "eps", "seed", "steps", "warmup")
        values = {k: v for k, v in self.to_json().items() if k not in traced}
        return json.dumps(values, sort_keys=True)

    def rule_parameters(self) -> dict[str, Any]:
        """Return the keyword arguments of the rule's class."""
        names = ("lr", "schedule", *RULE_PARAMETERS[self.rule])
        return {name: getattr(self, name) for name in names}

    def row(self) -> dict[str, Any]:
        """Return the `runs` columns that come from the configuration."""
        return {
            "run_id": self.run_id,
            **self.to_json(),
            "workload_options": json.dumps(dict(self.workload_options), sort_keys=True),
            "flows": ",".join(self.flows),
        }

    def __str__(self) -> str:
        return f"{self.workload}/{self.criterion} {self.rule} lr={self.lr:g} seed={self.seed}"


@dataclass(frozen=True)
class Grid:
    """A workload and a rule over learning rates; seeds and lengths are the sweep's unless given.

    Example:
        >>> Grid(workload="saddle_2d", rule="gradient_descent", lrs=(0.1, 0.2)).lrs
        (0.1, 0.2)
    """

    workload: str
    rule: str
    lrs: tuple[float, ...]
    criterion: str = "mse"
    workload_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    beta2: float | None = None
    eps: float | None = None
    bias_correction: bool | None = None
    schedule: str = "constant"
    seeds: tuple[int, ...] | None = None
    steps: int | None = None
    warmup: int | None = None
    substeps: int | None = None
    scheme: str | None = None
    num_eigs: int | None = None
    record_every: int | None = None
    flows: tuple[str, ...] | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        lrs = tuple(positive("lrs", lr) for lr in sequence("lrs", self.lrs))
        object.__setattr__(self, "lrs", lrs)
        if self.seeds is not None:
            object.__setattr__(self, "seeds", _check_seeds(self.seeds))


def _check_seeds(value: Any) -> tuple[int, ...]:
    """Return the seeds as a tuple of integers >= 0."""
    return tuple(seed_number("seeds", seed) for seed in sequence("seeds", value))


@dataclass(frozen=True)
class Execution:
    """How a sweep is carried out. None of this changes a number or a run id.

    Attributes:
        storage: folder or URI (s3://bucket/folder, ...) that holds a folder for each sweep.
        chunk_steps: optimizer steps in one compiled chunk; progress is reported after each.
        checkpoint_every: chunks between two checkpoints; a fault costs at most this much work.
        workers: most runs at the same time; None for as many as fit.
        pack: most runs of one kind in one batched program; None for 1 on CPUs, and on GPUs for as
            many as fit into memory and measurably gain. Numbers are those of single runs up to
            rounding.
        cpus_per_run: CPU cores that a run, or a pack of runs, holds.
        gpus_per_run: GPUs, or the fraction of one, that a run holds; None for 1 if there are GPUs.
        memory_gb_per_run: memory that a run reserves; 0 for none.
        max_failures: how often a run is tried again after a lost process or machine; -1 for ever.
        autoscaling: do not refuse a run that fits on no machine yet; clusters of Ray's own launcher
            are known to grow without this.
        address: Ray cluster to use ("auto", host:port); None for the one that this machine belongs
            to, or else a private one on this machine.
        compile_cache: folder for compiled programs; None for the user's cache, "" for none.
    """

    storage: str = "results"
    chunk_steps: int = 100
    checkpoint_every: int = 1
    workers: int | None = None
    pack: int | None = None
    cpus_per_run: float = 1.0
    gpus_per_run: float | None = None
    memory_gb_per_run: float = 0.0
    max_failures: int = 5
    autoscaling: bool = False
    address: str | None = None
    compile_cache: str | None = None

    def __post_init__(self) -> None:
        require(bool(str(self.storage).strip()), "storage", "a folder or URI", self.storage)
        for name in ("chunk_steps", "checkpoint_every"):
            integer(name, getattr(self, name), 1)
        for name in ("workers", "pack"):
            if getattr(self, name) is not None:
                integer(name, getattr(self, name), 1)
        integer("max_failures", self.max_failures, -1)
        positive("cpus_per_run", self.cpus_per_run)
        number("memory_gb_per_run", self.memory_gb_per_run, ">= 0", 0.0)
        if self.gpus_per_run is not None:
            gpus = number("gpus_per_run", self.gpus_per_run, ">= 0", 0.0)
            whole = gpus <= 1 or gpus == int(gpus)  # Ray has fractions only below one GPU
            require(whole, "gpus_per_run", "a fraction below 1 or a whole number", gpus)


@dataclass(frozen=True)
class SweepConfig:
    """A study: grids over learning rates × seeds, and how to carry it out.

    Raises `ConfigError` for a value that is not allowed, and for a run that occurs twice.

    Example:
        >>> grid = Grid(workload="saddle_2d", rule="gradient_descent", lrs=(0.1, 0.2))
        >>> len(SweepConfig(name="example", grids=(grid,), seeds=(0, 1), steps=50).runs)
        4
    """

    name: str
    grids: tuple[Grid, ...]
    seeds: tuple[int, ...] = (0,)
    steps: int = 1000
    warmup: int = 15
    substeps: int = 4
    scheme: str = "euler"
    num_eigs: int = 4
    record_every: int = 1
    flows: tuple[str, ...] = FLOWS
    dtype: str = "float32"
    execution: Execution = field(default_factory=Execution)

    def __post_init__(self) -> None:
        ok = isinstance(self.name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.name)
        require(bool(ok), "name", "letters, digits, '_', '-' and '.'", self.name)
        object.__setattr__(self, "grids", sequence("grids", self.grids))
        object.__setattr__(self, "seeds", _check_seeds(self.seeds))
        _ = self.runs  # made now, so that every mistake shows now

    @functools.cached_property
    def runs(self) -> tuple[RunConfig, ...]:
        """All runs, grid by grid, so that neighbours share their compiled programs."""
        result: dict[str, RunConfig] = {}
        for grid in self.grids:
            for lr in grid.lrs:
                for seed in grid.seeds if grid.seeds is not None else self.seeds:
                    run = self._run(grid, lr, seed)
                    if run.run_id in result:
                        raise ConfigError(f"grids must not give a run twice, got twice {run}")
                    result[run.run_id] = run
        return tuple(result.values())

    def _run(self, grid: Grid, lr: float, seed: int) -> RunConfig:
        """Return one run of a grid."""
        own = {name: getattr(grid, name) for name in SHARED}
        shared = {k: getattr(self, k) if v is None else v for k, v in own.items()}
        return RunConfig(
            workload=grid.workload,
            rule=grid.rule,
            lr=lr,
            criterion=grid.criterion,
            workload_options=grid.workload_options,
            beta2=grid.beta2,
            eps=grid.eps,
            bias_correction=grid.bias_correction,
            schedule=grid.schedule,
            seed=seed,
            **shared,
        )

    def only(self, names: Iterable[str]) -> SweepConfig:
        """Keep the grids with the named workloads, rules and criteria.

        Where several of these three are named, a grid must have one of each.

        Raises `ConfigError` for a name that no grid has, and if no grid has the combination.
        """
        names = tuple(names)
        kept = self.grids
        kinds = ("workload", "rule", "criterion")
        known = {kind: {str(getattr(g, kind)) for g in self.grids} for kind in kinds}
        for name in names:
            one_of("only", name, sorted(set().union(*known.values())))
        for kind, values in known.items():
            if asked := values & set(names):
                kept = tuple(g for g in kept if getattr(g, kind) in asked)
        require(bool(kept), "only", "a combination that some grid has", " ".join(names))
        return replace(self, grids=kept)

    def smoke(self) -> SweepConfig:
        """Shrink to a trial of the machinery: a run per workload, criterion and rule, few steps."""
        kept: dict[tuple[str, str, str], Grid] = {}
        for grid in self.grids:
            seeds = grid.seeds if grid.seeds is not None else self.seeds
            steps = grid.steps if grid.steps is not None else self.steps
            small = replace(grid, lrs=grid.lrs[:1], seeds=seeds[:1], steps=min(steps, 20))
            kept.setdefault((grid.workload, grid.criterion, grid.rule), small)
        execution = replace(self.execution, chunk_steps=min(self.execution.chunk_steps, 10))
        return replace(
            self, name=f"{self.name}-smoke", grids=tuple(kept.values()), execution=execution
        )

    def to_json(self) -> dict[str, Any]:
        """Return name, execution and runs as plain JSON values."""
        execution = {f.name: getattr(self.execution, f.name) for f in fields(Execution)}
        runs = {run.run_id: run.to_json() for run in self.runs}
        return {"name": self.name, "execution": execution, "runs": runs}
