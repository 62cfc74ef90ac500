"""What a sweep is: grids over hyperparameters and seeds, and how to carry it out.

`Execution` (`execution_settings.py`) says how and never enters a run's id: the same sweep on a
laptop and on a cluster has the same runs. Like a run (`run_config.py`), a sweep is checked when it
is made.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from cflows_ray.checks import (
    ConfigError,
    one_of,
    plain,
    positive,
    require,
    seed_number,
    sequence,
)
from cflows_ray.declare import check_declared
from cflows_ray.flows import Settings
from cflows_ray.rules import RULES, all_hyperparameters, hyperparameters
from cflows_ray.sweep.edge import AroundEdge, AtSharpness
from cflows_ray.sweep.execution_settings import Execution
from cflows_ray.sweep.pilot import FIRST_RATE, Pilot
from cflows_ray.sweep.run_config import SHARED, RunConfig
from cflows_ray.sweep.sampling import (
    Choice,
    Distribution,
    as_distribution,
    number_of_points,
    points,
    without_number,
)


@dataclass(frozen=True, init=False)
class Grid:
    """A workload and a rule over hyperparameters; seeds and lengths are the sweep's unless given.

    Args:
        workload, criterion, workload_options: of `cflows_ray.workloads`.
        rule: the update rule.
        lrs: learning rates, what they are sampled from (`sampling`), or where they lie relative to
            the edge of stability (`edge`).
        seeds: of this grid; the sweep's if left out.
        samples: number of sampled points; may be given as `n` of a distribution instead. More of
            them later keep those that there were.
        sample_seed: another one gives other points.
        more: hyperparameters of the rule by name, each a value, a sequence of values of which
            every combination is a run, or what it is sampled from; and `steps`, `warmup` and
            numerical settings of this grid. All that is sampled is sampled together, and combined
            with every combination of the rest.

    Raises `ConfigError` for a value that is not allowed, `TypeError` for a name that is unknown.

    Example:
        >>> grid = Grid(workload="saddle_2d", rule="rmsprop", lrs=(0.1, 0.2), beta2=(0.9, 0.99))
        >>> len(list(grid.points()))
        4
        >>> from cflows_ray.sweep import LogUniform
        >>> sampled = Grid(workload="saddle_2d", rule="rmsprop", lrs=LogUniform(0.01, 1.0, n=200))
        >>> len(list(sampled.points()))
        200
    """

    workload: str
    rule: str
    lrs: tuple[float, ...] | Distribution | AtSharpness | AroundEdge
    criterion: str
    workload_options: Mapping[str, Any] = field(hash=False)
    seeds: tuple[int, ...] | None
    samples: int | None
    sample_seed: int
    more: Mapping[str, Any] = field(hash=False)

    def __init__(
        self,
        workload: str,
        rule: str,
        lrs: Iterable[float] | Distribution | AtSharpness | AroundEdge | None = None,
        criterion: str = "mse",
        workload_options: Mapping[str, Any] | None = None,
        seeds: Iterable[int] | None = None,
        *,
        samples: int | None = None,
        sample_seed: int = 0,
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
        merged = {n: as_distribution(n, v) for n, v in merged.items() if v is not None}
        lrs = as_distribution("lrs", lrs)
        sampled = {"lrs": lrs, **merged}
        sampled = {n: d for n, d in sampled.items() if isinstance(d, Distribution)}
        _check_sampled(rule, sampled)
        put("samples", number_of_points(samples, sampled.values()))
        put("sample_seed", seed_number("sample_seed", sample_seed))
        free = {name: without_number(d) for name, d in sampled.items()}
        put("lrs", free["lrs"] if "lrs" in free else _check_rates(lrs))
        put("criterion", criterion)
        put("workload_options", {} if workload_options is None else workload_options)
        put("seeds", None if seeds is None else _check_seeds(seeds))
        put("more", {name: free.get(name, value) for name, value in merged.items()})

    def points(self) -> Iterator[dict[str, Any]]:
        """Yield the hyperparameters of every run but its seed: all combinations of the values.

        The learning rate is None where a pilot must find it first.
        """
        values = {"lr": self.lrs, **{n: v for n, v in self.more.items() if n not in SHARED}}
        sampled = {n: v for n, v in values.items() if isinstance(v, Distribution)}
        if isinstance(self.lrs, AtSharpness):
            values["lr"] = self.lrs.sharpnesses
        elif isinstance(self.lrs, AroundEdge):
            del values["lr"]
        listed = {n: _several(n, v) for n, v in values.items() if n not in sampled}
        drawn: Iterable[dict[str, Any]] = [{}]
        if self.samples is not None:
            drawn = points(sampled, self.samples, self.sample_seed)
        combinations = [
            dict(zip(listed, some, strict=True)) for some in itertools.product(*listed.values())
        ]
        for point in drawn:
            for combination in combinations:
                merged = {"lr": None, **point, **combination}
                if isinstance(self.lrs, AtSharpness):
                    others = {n: v for n, v in merged.items() if n != "lr"}
                    one = AtSharpness(merged["lr"])
                    (merged["lr"],) = one.rates(self.rule, others)
                yield merged

    @property
    def is_sampled(self) -> bool:
        """Whether the learning rate or another hyperparameter is sampled."""
        return self.samples is not None


def _check_rates(lrs: Any) -> tuple[float, ...] | AtSharpness | AroundEdge:
    """Return learning rates as a tuple of positive numbers; those relative to the edge as given."""
    if isinstance(lrs, AtSharpness | AroundEdge):
        return lrs
    return tuple(positive("lrs", lr) for lr in sequence("lrs", lrs))


def _check_sampled(rule: str, sampled: Mapping[str, Distribution]) -> None:
    """Raise `ConfigError` for what can't be sampled, or not from this distribution."""
    for name, distribution in sampled.items():
        require(name not in SHARED, name, "the same for all runs of a grid", distribution)
        if name != "lrs" and rule in RULES and not isinstance(distribution, Choice):
            kind = hyperparameters(rule).get(name)
            is_number = kind is None or kind.kind == "number"
            require(is_number, name, "a Choice of values", distribution)


def _several(name: str, value: Any) -> tuple[Any, ...]:
    """Return the values of a hyperparameter: a sequence, or one."""
    value = plain(value)
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
        _ = self.runs, self.pilots  # made now, so that every mistake shows now

    @functools.cached_property
    def runs(self) -> tuple[RunConfig, ...]:
        """All runs, grid by grid, so that neighbours share their compiled programs.

        Without those whose learning rates wait for pilots.
        """
        result: dict[str, RunConfig] = {}
        for grid in self.grids:
            if isinstance(grid.lrs, AroundEdge):
                continue
            seeds = self._seeds(grid)
            for point in grid.points():
                first = self._run(grid, point, seeds[0])
                for run in (first, *map(first.with_seed, seeds[1:])):
                    if run.run_id in result:
                        raise ConfigError(f"grids must not give a run twice, got twice {run}")
                    result[run.run_id] = run
        return tuple(result.values())

    @functools.cached_property
    def pilots(self) -> tuple[Pilot, ...]:
        """The pilots that learning rates wait for, each once."""
        found: dict[str, Pilot] = {}
        for grid in self.grids:
            if isinstance(grid.lrs, AroundEdge):
                for point in grid.points():
                    pilot = self._pilot(grid, point, grid.lrs)
                    found[pilot.pilot_id] = pilot
        return tuple(found.values())

    @property
    def num_waiting(self) -> int:
        """Number of runs whose learning rates wait for pilots."""
        return sum(
            len(grid.lrs.factors) * len(self._seeds(grid)) * len(list(grid.points()))
            for grid in self.grids
            if isinstance(grid.lrs, AroundEdge)
        )

    def _seeds(self, grid: Grid) -> tuple[int, ...]:
        """Return a grid's own seeds, or the sweep's."""
        return self.seeds if grid.seeds is None else grid.seeds

    def _pilot(self, grid: Grid, point: Mapping[str, Any], asked: AroundEdge) -> Pilot:
        """Return the pilot of one point of a grid."""
        run = self._run(grid, {**point, "lr": FIRST_RATE}, 0)
        return Pilot(replace(run, steps=asked.steps))

    def resolved(self, edges: Mapping[str, float | None]) -> SweepConfig:
        """Return the sweep with the learning rates that pilots have found.

        A point whose pilot found no edge is left out; one whose pilot is not there, or has failed,
        still waits.

        Args:
            edges: the rate at the edge by pilot id; None where none was found.

        Raises `ConfigError` if nothing is left.
        """
        if not self.pilots:
            return self
        grids: list[Grid] = []
        for grid in self.grids:
            asked = grid.lrs
            if not isinstance(asked, AroundEdge):
                grids.append(grid)
                continue
            for point in grid.points():
                pilot_id = self._pilot(grid, point, asked).pilot_id
                edge = edges.get(pilot_id)
                if pilot_id in edges and edge is None:
                    continue
                more = {**grid.more, **{n: v for n, v in point.items() if n != "lr"}}
                rates = asked if edge is None else asked.rates(edge)
                grids.append(replace(grid, lrs=rates, samples=None, more=more))
        if not grids:
            raise ConfigError("lrs must have an edge to be around, no pilot found one")
        return replace(self, grids=tuple(grids))

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
            first = dict(next(grid.points()))
            lr = first.pop("lr")
            first["steps"] = min(grid.more.get("steps", self.steps), 20)
            rates = grid.lrs.smoke() if isinstance(grid.lrs, AroundEdge) else (lr,)
            small = replace(
                grid,
                lrs=rates,
                samples=None,
                seeds=self._seeds(grid)[:1],
                more={**grid.more, **first},
            )
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
