"""The registry of rules, and what follows from the hyperparameters that they declare."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from cflows_ray.declare import NOTHING, Declared, declared
from cflows_ray.registry import Registry
from cflows_ray.schema import Column

RULES: Registry[Any] = Registry(
    "rule",
    "cflows_ray.rules",
    {
        "gradient_descent": "cflows_ray.rules.gradient_descent:GradientDescent",
        "scalar_rmsprop": "cflows_ray.rules.scalar_rmsprop:ScalarRMSProp",
        "rmsprop": "cflows_ray.rules.rmsprop:RMSProp",
        "adam": "cflows_ray.rules.adam:Adam",
        "adamw": "cflows_ray.rules.adamw:AdamW",
        "nadam": "cflows_ray.rules.nadam:NAdam",
        "scalar_adam": "cflows_ray.rules.scalar_adam:ScalarAdam",
    },
)


def hyperparameters(rule: str) -> dict[str, Declared]:
    """Return what a registered rule declares, by name.

    Raises `ConfigError` for a rule that does not exist.

    Example:
        >>> list(hyperparameters("rmsprop"))
        ['lr', 'beta2', 'eps', 'bias_correction', 'schedule', 'momentum', 'weight_decay']
    """
    return declared(RULES[rule])


def all_hyperparameters() -> dict[str, Declared]:
    """Return what all registered rules declare, by name; of a name that several use, the first."""
    return _all_hyperparameters(tuple(RULES))


@functools.lru_cache(maxsize=8)
def _all_hyperparameters(names: tuple[str, ...]) -> dict[str, Declared]:
    found: dict[str, Declared] = {}
    for name in names:
        for parameter, info in hyperparameters(name).items():
            found.setdefault(parameter, info)
    return found


def first_values(rule: str) -> dict[str, Any]:
    """Return what holds for runs of a rule from before a hyperparameter was added, by name.

    Empty for a rule that is not known here.

    Example:
        >>> first_values("gradient_descent")["momentum"]
        0.0
    """
    if rule not in RULES:
        return {}
    known = hyperparameters(rule).items()
    return {name: info.absent for name, info in known if info.absent is not NOTHING}


_TYPES = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "text": pa.string(),
    "boolean": pa.bool_(),
}


def hyperparameter_columns() -> Iterator[Column]:
    """Yield a column of the `runs` table for every hyperparameter that some rule declares.

    Null for a rule that does not have it. All registered rules, whichever a sweep has: the files of
    a sweep share one schema.
    """
    first = {rule: first_values(rule) for rule in RULES}
    for name, info in all_hyperparameters().items():
        yield Column(
            name,
            _TYPES[info.kind],
            info.unit,
            f"{info.meaning}; null for a rule without",
            role="hyperparameter",
            symbol=info.symbol,
            first={rule: values[name] for rule, values in first.items() if name in values},
        )
