"""What a run and a sweep are: frozen dataclasses, checked when they are made, and the run id.

`RunConfig` is everything that decides a run's numbers, and its hash is the run id. `SweepConfig`
is a list of grids over hyperparameters and seeds. `Execution` (`execution.py`) says how a sweep is
carried out and never enters the run id: the same sweep on a laptop and on a cluster has the same
runs.

A rule's hyperparameters are declared by the rule, numerical settings by `flows.Settings`; both are
taken by name here, and nothing in this file knows them. Nothing here imports JAX or Ray, so that a
mistake is reported at once, before anything is compiled or scheduled. Every error is a
`ConfigError` of one line that names the field, the value and what is allowed.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from cflows_ray.checks import ConfigError, integer, one_of, positive, require, seed_number, sequence
from cflows_ray.declare import check_declared, declared, default_of
from cflows_ray.flows import FLOWS, Settings
from cflows_ray.rules import RULES, AveragedRule, UpdateRule, all_hyperparameters, is_traced
from cflows_ray.sweep.execution import Execution
from cflows_ray.workloads import CRITERIA, check_workload, describe

SETTINGS = tuple(declared(Settings))
# Settings of a run that a sweep sets for all its grids and a grid may set for itself.
SHARED = ("steps", "warmup", *SETTINGS)
# The run ids of the first three rules were made when every run named these, null where a rule has
# none; so they are spelt out in every id.
IN_EVERY_ID = ("beta2", "eps", "bias_correction")
# Fields of a run by themselves, though rules declare them.
OWN = ("lr", "schedule")


def _in_order(flows: Iterable[str]) -> tuple[str, ...]:
    """Return flows in the registry's order: the order does not change a run, nor may it its id."""
    flows = tuple(flows)
    return tuple(name for name in FLOWS if name in flows)


def _json_options(options: Any) -> dict[str, Any]:
    """Return a workload's options as plain JSON values, keys sorted."""
    require(isinstance(options, Mapping), "workload_options", "a mapping", options)
    try:
        return dict(json.loads(json.dumps(options, sort_keys=True, allow_nan=False)))
    except (TypeError, ValueError):
        raise ConfigError(
            f"workload_options must be numbers, words or lists of them, got {options!r}"
        ) from None


@dataclass(frozen=True, init=False)
class RunConfig(Settings):
    """One run: everything that decides its numbers.

    Args:
        workload, criterion, workload_options: of `cflows_ray.workloads`.
        rule, lr, schedule: the update rule, its learning rate and schedule.
        seed: of the initial parameters.
        warmup, steps: optimizer steps before and after the common starting point.
        more: the rule's other hyperparameters and numerical settings (`flows.Settings`), by name.
            What is left out (or None) has its default; a hyperparameter that the rule does not have
            must be left out.

    Attributes:
        hyper: the rule's other hyperparameters, defaults filled in.

    Raises `ConfigError` for any value that is not allowed, `TypeError` for a name that is unknown.

    Example:
        >>> run = RunConfig(workload="saddle_2d", rule="rmsprop", lr=0.2, beta2=0.9, steps=50)
        >>> len(run.run_id), run.hyper["beta2"]
        (16, 0.9)
    """

    workload: str
    rule: str
    lr: float
    criterion: str
    workload_options: Mapping[str, Any] = field(hash=False)
    schedule: str
    seed: int
    warmup: int
    steps: int
    hyper: Mapping[str, Any] = field(hash=False)

    def __init__(
        self,
        workload: str,
        rule: str,
        lr: float,
        criterion: str = "mse",
        workload_options: Mapping[str, Any] | None = None,
        schedule: str = "constant",
        seed: int = 0,
        *,
        warmup: int = 15,
        steps: int = 1000,
        hyper: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        for name in SETTINGS:
            put(name, more.pop(name, default_of(Settings, name)))
        options = _json_options({} if workload_options is None else workload_options)
        one_of("criterion", criterion, CRITERIA)
        check_workload(workload, criterion, options)
        one_of("rule", rule, RULES)
        made = _make_rule(rule, {"lr": lr, "schedule": schedule, **(hyper or {}), **more})
        put("workload", workload)
        put("criterion", criterion)
        put("workload_options", options)
        put("rule", rule)
        values = {name: getattr(made, name) for name in declared(made)}
        put("lr", values.pop("lr"))
        put("schedule", values.pop("schedule"))
        put("hyper", values)
        put("seed", seed_number("seed", seed))
        super().__post_init__()
        put("flows", _in_order(self.flows))
        put("warmup", integer("warmup", warmup, 0))
        put("steps", integer("steps", steps, 1))
        made.check_integration(self.longest_substep)
        if not isinstance(made, AveragedRule):
            _check_defined(self.flows, made)

    @property
    def update_rule(self) -> UpdateRule:
        """The rule with its hyperparameters."""
        return _make_rule(self.rule, {"lr": self.lr, "schedule": self.schedule, **self.hyper})

    def with_seed(self, seed: int) -> RunConfig:
        """Return the same run from other initial parameters; nothing else is checked again.

        Raises `ConfigError` for a seed that is not allowed.
        """
        values = {name: value for name, value in vars(self).items() if name != "run_id"}
        other = object.__new__(type(self))
        vars(other).update(values, seed=seed_number("seed", seed))
        return other

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as plain JSON values; `RunConfig(**...)` is the inverse."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "hyper"}
        return {
            **values,
            **self.hyper,
            "flows": list(self.flows),
            "workload_options": dict(self.workload_options),
        }

    @functools.cached_property
    def run_id(self) -> str:
        """Hash of the whole configuration: 16 hexadecimal digits."""
        # a field added later is left out at its first value: older runs keep their ids
        known = {**declared(Settings), **declared(RULES[self.rule])}
        values = dict.fromkeys(IN_EVERY_ID) | {
            name: value
            for name, value in self.to_json().items()
            if name not in known or value != known[name].absent
        }
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def kind(self) -> str:
        """What decides the compiled program: the configuration without its traced numbers."""
        rule = self.update_rule
        traced = {"seed", "steps", "warmup", *(n for n in declared(rule) if is_traced(rule, n))}
        values = {k: v for k, v in self.to_json().items() if k not in traced}
        return json.dumps(values, sort_keys=True)

    def row(self) -> dict[str, Any]:
        """Return the `runs` columns that come from the configuration; null where it has none."""
        return {
            **dict.fromkeys(all_hyperparameters()),
            "run_id": self.run_id,
            **self.to_json(),
            "workload_options": json.dumps(dict(self.workload_options), sort_keys=True),
            "flows": ",".join(self.flows),
        }

    def __str__(self) -> str:
        given = {"schedule": self.schedule, **self.hyper}
        kind = RULES[self.rule]
        told = [f"{n}={_short(v)}" for n, v in given.items() if v != default_of(kind, n)]
        words = [self.rule, f"lr={self.lr:g}", *told, f"seed={self.seed}"]
        workload = describe(self.workload, self.workload_options)
        return f"{workload}/{self.criterion} {' '.join(words)}"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _make_rule(name: str, given: Mapping[str, Any]) -> UpdateRule:
    """Return a rule by its name; None stands for a hyperparameter's default.

    Raises `ConfigError` for a value that is not allowed or a hyperparameter that the rule has not,
    `TypeError` for a name that no rule has.
    """
    kind = RULES[name]
    known, everywhere = declared(kind), all_hyperparameters()
    values = {}
    for parameter, value in given.items():
        if parameter not in known and parameter not in everywhere:
            raise TypeError(
                f"RunConfig.__init__() got an unexpected keyword argument {parameter!r}"
            )
        if parameter not in known:
            require(value is None, parameter, f"left out for {name}", value)
        elif value is not None or parameter == "lr":
            values[parameter] = value
    return kind(**values)


def _check_defined(flows: Iterable[str], rule: UpdateRule) -> None:
    """Raise `ConfigError` for a flow that is not defined for a rule."""
    for name in flows:
        needed = FLOWS[name].needs(rule)
        require(needed is None, "flows", f"defined for the rule ({name} needs {needed})", rule)


@dataclass(frozen=True, init=False)
class Grid:
    """A workload and a rule over hyperparameters; seeds and lengths are the sweep's unless given.

    Args:
        workload, criterion, workload_options: of `cflows_ray.workloads`.
        rule: the update rule.
        lrs: learning rates.
        seeds: of this grid; the sweep's if left out.
        more: hyperparameters of the rule by name, each a value or a sequence of values of which
            every combination is a run; and `steps`, `warmup` and numerical settings of this grid.

    Raises `ConfigError` for a value that is not allowed, `TypeError` for a name that is unknown.

    Example:
        >>> grid = Grid(workload="saddle_2d", rule="rmsprop", lrs=(0.1, 0.2), beta2=(0.9, 0.99))
        >>> len(list(grid.points()))
        4
    """

    workload: str
    rule: str
    lrs: tuple[float, ...]
    criterion: str
    workload_options: Mapping[str, Any] = field(hash=False)
    seeds: tuple[int, ...] | None
    more: Mapping[str, Any] = field(hash=False)

    def __init__(
        self,
        workload: str,
        rule: str,
        lrs: Iterable[float] | None = None,
        criterion: str = "mse",
        workload_options: Mapping[str, Any] | None = None,
        seeds: Iterable[int] | None = None,
        *,
        more: Mapping[str, Any] | None = None,
        **given: Any,
    ) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        merged = {**(more or {}), **given}
        known = ({*all_hyperparameters(), *SHARED}) - {"lr"}
        for name in merged:
            if name not in known:
                raise TypeError(f"Grid.__init__() got an unexpected keyword argument {name!r}")
        put("workload", workload)
        put("rule", rule)
        put("lrs", tuple(positive("lrs", lr) for lr in sequence("lrs", lrs)))
        put("criterion", criterion)
        put("workload_options", {} if workload_options is None else workload_options)
        put("seeds", None if seeds is None else _check_seeds(seeds))
        put("more", {name: value for name, value in merged.items() if value is not None})

    def own(self, name: str) -> Any:
        """Return the grid's own value of a setting or hyperparameter, or None."""
        return self.more.get(name)

    def points(self) -> Iterator[dict[str, Any]]:
        """Yield the hyperparameters of every run but its seed: all combinations of the values."""
        names = [name for name in self.more if name not in SHARED]
        values = [self.lrs, *(_several(name, self.more[name]) for name in names)]
        for combination in itertools.product(*values):
            yield dict(zip(("lr", *names), combination, strict=True))


def _several(name: str, value: Any) -> tuple[Any, ...]:
    """Return the values of a hyperparameter: a sequence, or one."""
    is_one = isinstance(value, str | Mapping) or not isinstance(value, Iterable)
    return (value,) if is_one else sequence(name, value)


def _check_seeds(value: Any) -> tuple[int, ...]:
    """Return the seeds as a tuple of integers >= 0."""
    return tuple(seed_number("seeds", seed) for seed in sequence("seeds", value))


@dataclass(frozen=True)
class SweepConfig(Settings):
    """A study: grids over hyperparameters × seeds, and how to carry it out.

    Numerical settings (`flows.Settings`) given here hold for every grid that has none of its own.

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
    execution: Execution = field(default_factory=Execution)

    def __post_init__(self) -> None:
        ok = isinstance(self.name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.name)
        require(bool(ok), "name", "letters, digits, '_', '-' and '.'", self.name)
        object.__setattr__(self, "grids", sequence("grids", self.grids))
        object.__setattr__(self, "seeds", _check_seeds(self.seeds))
        check_declared(self)
        _ = self.runs  # made now, so that every mistake shows now

    @functools.cached_property
    def runs(self) -> tuple[RunConfig, ...]:
        """All runs, grid by grid, so that neighbours share their compiled programs."""
        result: dict[str, RunConfig] = {}
        for grid in self.grids:
            for point in grid.points():
                seeds = grid.seeds if grid.seeds is not None else self.seeds
                first = self._run(grid, point, seeds[0])
                for run in (first, *map(first.with_seed, seeds[1:])):
                    if run.run_id in result:
                        raise ConfigError(f"grids must not give a run twice, got twice {run}")
                    result[run.run_id] = run
        return tuple(result.values())

    def _run(self, grid: Grid, point: Mapping[str, Any], seed: int) -> RunConfig:
        """Return one run of a grid."""
        shared = {name: grid.more.get(name, getattr(self, name)) for name in SHARED}
        return RunConfig(
            workload=grid.workload,
            rule=grid.rule,
            criterion=grid.criterion,
            workload_options=grid.workload_options,
            seed=seed,
            **point,
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
            first = {name: value for name, value in next(grid.points()).items() if name != "lr"}
            first["steps"] = min(grid.more.get("steps", self.steps), 20)
            small = replace(grid, lrs=grid.lrs[:1], seeds=seeds[:1], more={**grid.more, **first})
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
