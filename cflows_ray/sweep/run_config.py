"""What a run is: everything that decides its numbers, checked when it is made, and its id.

A rule's hyperparameters are declared by the rule, numerical settings by `flows.Settings`; both are
taken by name here, and nothing in this file knows them. Nothing here imports JAX or Ray, so that a
mistake is reported at once, before anything is compiled or scheduled. Every error is a
`ConfigError` of one line that names the field, the value and what is allowed.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from cflows_ray.checks import ConfigError, integer, one_of, require, seed_number
from cflows_ray.declare import declared, default_of
from cflows_ray.flows import FLOWS, Settings, check_defined
from cflows_ray.rules import (
    RULES,
    AveragedRule,
    UpdateRule,
    all_hyperparameters,
    check_range,
    is_traced,
)
from cflows_ray.workloads import CRITERIA, check_workload, describe

SETTINGS = tuple(declared(Settings))
# Those that are several words.
LISTED = tuple(name for name, info in declared(Settings).items() if info.kind == "names")
# Settings of a run that a sweep sets for all its grids and a grid may set for itself.
SHARED = ("steps", "warmup", *SETTINGS)
# The run ids of the first three rules were made when every run named these, null where a rule has
# none; so they are spelt out in every id.
IN_EVERY_ID = ("beta2", "eps", "bias_correction")


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
        made = make_rule(rule, {"lr": lr, "schedule": schedule, **(hyper or {}), **more})
        put("workload", workload)
        put("criterion", criterion)
        put("workload_options", options)
        put("rule", rule)
        values = {name: getattr(made, name) for name in declared(made)}
        put("lr", values.pop("lr"))
        put("schedule", values.pop("schedule"))
        require(isinstance(self.schedule, str), "schedule", "a text in a sweep", self.schedule)
        put("hyper", values)
        put("seed", seed_number("seed", seed))
        super().__post_init__()
        put("flows", _in_order(self.flows))
        put("warmup", integer("warmup", warmup, 0))
        put("steps", integer("steps", steps, 1))
        check_range(made, self.dtype)
        made.check_integration(self.longest_substep)
        if not isinstance(made, AveragedRule):
            check_defined(self.flows, made)

    @property
    def update_rule(self) -> UpdateRule:
        """The rule with its hyperparameters."""
        return make_rule(self.rule, {"lr": self.lr, "schedule": self.schedule, **self.hyper})

    def with_seed(self, seed: int) -> RunConfig:
        """Return the same run from other initial parameters; nothing else is checked again.

        Raises `ConfigError` for a seed that is not allowed.
        """
        _ = self._id_around_seed  # once for all seeds
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
            **{name: list(getattr(self, name)) for name in LISTED},
            "workload_options": dict(self.workload_options),
        }

    @functools.cached_property
    def run_id(self) -> str:
        """Hash of the whole configuration: 16 hexadecimal digits."""
        before, after = self._id_around_seed
        return hashlib.sha256(f"{before}{self.seed}{after}".encode()).hexdigest()[:16]

    @functools.cached_property
    def _id_around_seed(self) -> tuple[str, str]:
        """What the id is a hash of, as sorted JSON: the text before the seed and that after it."""
        # a field added later is left out at its first value: older runs keep their ids
        known = {**declared(Settings), **declared(RULES[self.rule])}
        values = dict.fromkeys(IN_EVERY_ID) | {
            name: value
            for name, value in self.to_json().items()
            if name not in known or value != _as_json(known[name].absent)
        }
        before, after = (
            json.dumps(some, sort_keys=True, separators=(",", ":"), allow_nan=False)
            for some in (
                {name: value for name, value in values.items() if name < "seed"},
                {name: value for name, value in values.items() if name > "seed"},
            )
        )
        return f'{before[:-1]},"seed":', f",{after[1:]}"

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
            **{name: ",".join(getattr(self, name)) for name in LISTED},
        }

    def __str__(self) -> str:
        given = {"schedule": self.schedule, **self.hyper}
        kind = RULES[self.rule]
        told = [f"{n}={_short(v)}" for n, v in given.items() if v != default_of(kind, n)]
        words = [self.rule, f"lr={self.lr:g}", *told, f"seed={self.seed}"]
        workload = describe(self.workload, self.workload_options)
        return f"{workload}/{self.criterion} {' '.join(words)}"


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def make_rule(name: str, given: Mapping[str, Any]) -> UpdateRule:
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
