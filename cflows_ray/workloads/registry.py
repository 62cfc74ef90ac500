"""The registry of workloads, and building them by name."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cflows_ray.workloads import options as opt

if TYPE_CHECKING:
    from cflows_ray.workloads.base import Workload

CRITERIA = ("mse", "cross_entropy")


@dataclass(frozen=True)
class Entry:
    """How a workload is made: where its data set and network live, and its own defaults.

    Attributes:
        data: module of the data set (`load(options) -> DataSet`) and its options class.
        network: module of the network (`build(options, example, num_outputs) -> Network`) and its
            options class.
        defaults: options in which this workload differs from the classes' defaults.
        summary: one line for people.
    """

    summary: str
    data: tuple[str, type] | None
    network: tuple[str, type] | None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def option_classes(self) -> tuple[type, ...]:
        """Classes over which the flat options are split."""
        if self.data is None or self.network is None:
            return (opt.SaddleOptions,)
        return (self.data[1], self.network[1], opt.CommonOptions)


WORKLOADS: dict[str, Entry] = {
    "digits_mlp": Entry(
        summary="MLP on scikit-learn's handwritten digits",
        data=("digits", opt.DigitsOptions),
        network=("mlp", opt.MLPOptions),
        defaults={"width": 32, "depth": 2, "zero_head": True},
    ),
    "saddle_2d": Entry(
        summary="two parameters with an analytic central flow", data=None, network=None
    ),
}


def _resolve(name: str, criterion: str, options: Mapping[str, Any]) -> list[Any]:
    """Return the validated option instances of a workload."""
    if name not in WORKLOADS:
        raise ValueError(f"workload must be one of {sorted(WORKLOADS)}, got {name!r}")
    if criterion not in CRITERIA:
        raise ValueError(f"criterion must be one of {list(CRITERIA)}, got {criterion!r}")
    entry = WORKLOADS[name]
    return opt.resolve(entry.option_classes(), {**entry.defaults, **options}, name)


def check_workload(
    name: str, criterion: str = "mse", options: Mapping[str, Any] | None = None
) -> None:
    """Validate a request for a workload without loading data or JAX.

    Raises `ValueError` naming the field for an unknown workload, criterion or option and for a
    value that is not allowed.

    Example:
        >>> check_workload("digits_mlp", "mse", {"width": 16})
    """
    _resolve(name, criterion, options or {})


def build_workload(name: str, criterion: str = "mse", **options: Any) -> Workload:
    """Build the named workload; the same call gives the same object, so programs are reused.

    Raises what `check_workload` raises, and the data set's error where data are missing.

    Example:
        >>> build_workload("digits_mlp", width=16) is build_workload("digits_mlp", width=16)
        True
    """
    check_workload(name, criterion, options)
    frozen = tuple(sorted((k, tuple(v) if isinstance(v, list) else v) for k, v in options.items()))
    return _build(name, criterion, frozen)


@functools.lru_cache(maxsize=64)
def _build(name: str, criterion: str, options: tuple[tuple[str, Any], ...]) -> Workload:
    """Build a workload from validated, hashable options."""
    entry = WORKLOADS[name]
    resolved = _resolve(name, criterion, dict(options))
    if entry.data is None or entry.network is None:
        return _module("saddle").build(name, criterion, *resolved)
    data_options, network_options, common = resolved
    data = _module(entry.data[0]).load(data_options)
    network = _module(entry.network[0]).build(network_options, data.x[:1], data.num_outputs)
    return _module("base").supervised(name, criterion, data, network, common)


def _module(name: str) -> Any:
    """Import a module of this package when it is needed."""
    return importlib.import_module(f"cflows_ray.workloads.{name}")
