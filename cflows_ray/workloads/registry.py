"""The registry of workloads, and building them by name."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cflows_ray.checks import one_of
from cflows_ray.workloads import options as opt
from cflows_ray.workloads.data.cifar10_download import DataUnavailable, find_folder

if TYPE_CHECKING:
    from cflows_ray.workloads.base import Workload

CRITERIA = ("mse", "cross_entropy")
SCALES = ("paper", "cpu")


@dataclass(frozen=True)
class Entry:
    """How a workload is made. Its data set and network are modules of this package.

    Attributes:
        summary: one line for people.
        data: module with `load(options) -> DataSet`; None for a problem without data.
        data_options: options class of the data set.
        network: module with `build(options, data) -> Network`; None where an option names it.
        defaults: options in which the workload differs from the classes' defaults.
        cpu: options of `scale="cpu"`; None where the workload has only one scale.
    """

    summary: str
    data: str | None
    data_options: type
    network: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    cpu: Mapping[str, Any] | None = None


_CIFAR_CPU = {"num_examples": 200, "num_test": 200, "downsample": 2}
_SORTING_CPU = {"num_examples": 200, "num_test": 200}

WORKLOADS: dict[str, Entry] = {
    "digits_mlp": Entry(
        "MLP on scikit-learn's handwritten digits",
        "digits",
        opt.DigitsOptions,
        "mlp",
        defaults={"width": 32, "depth": 2, "zero_head": True},
    ),
    "saddle_2d": Entry("two parameters with an analytic central flow", None, opt.SaddleOptions),
    "mlp_cifar10": Entry(
        "MLP on CIFAR-10", "cifar10", opt.CIFAR10Options, "mlp", cpu={**_CIFAR_CPU, "width": 32}
    ),
    "cnn_cifar10": Entry(
        "convolutional network on CIFAR-10",
        "cifar10",
        opt.CIFAR10Options,
        "cnn",
        cpu={**_CIFAR_CPU, "width": 8},
    ),
    "resnet_cifar10": Entry(
        "residual network with group norm on CIFAR-10",
        "cifar10",
        opt.CIFAR10Options,
        "resnet",
        cpu={**_CIFAR_CPU, "num_examples": 100, "stages": (1, 1), "width": 8, "groups": 4},
    ),
    "vit_cifar10": Entry(
        "vision transformer on CIFAR-10",
        "cifar10",
        opt.CIFAR10Options,
        "vit",
        cpu={**_CIFAR_CPU, "dim": 16, "depth": 2, "heads": 2, "head_dim": 8, "mlp_dim": 32},
    ),
    "lstm_sorting": Entry(
        "LSTM on sorting",
        "sorting",
        opt.SortingOptions,
        "lstm",
        cpu={**_SORTING_CPU, "embedding": 16, "hidden": 16},
    ),
    "transformer_sorting": Entry(
        "causal transformer on sorting",
        "sorting",
        opt.SortingOptions,
        "transformer",
        cpu={**_SORTING_CPU, "layers": 2, "dim": 16, "heads": 2, "mlp_ratio": 2},
    ),
    "mamba_sorting": Entry(
        "Mamba on sorting",
        "sorting",
        opt.SortingOptions,
        "mamba",
        defaults={"num_examples": 250},
        cpu={**_SORTING_CPU, "num_examples": 100, "dim": 16, "state": 4},
    ),
    "npz": Entry("your own data from an .npz file", "npz", opt.NpzOptions),
}


def _resolve(name: str, criterion: str, options: Mapping[str, Any]) -> tuple[str | None, list[Any]]:
    """Return the network's name and the validated option instances of a workload."""
    one_of("workload", name, sorted(WORKLOADS))
    one_of("criterion", criterion, CRITERIA)
    entry, options = WORKLOADS[name], dict(options)
    preset: Mapping[str, Any] = {}
    if entry.cpu is not None:
        scale = options.pop("scale", "paper")
        one_of("scale", scale, SCALES)
        preset = entry.cpu if scale == "cpu" else {}
    options = {**entry.defaults, **preset, **options}
    if entry.data is None:
        return None, opt.resolve((entry.data_options,), options, name)
    network = entry.network
    if network is None:
        network = opt.NpzOptions(options.get("path", ""), options.get("network", "mlp")).network
    classes = (entry.data_options, opt.NETWORK_OPTIONS[network], opt.CommonOptions)
    resolved = opt.resolve(classes, options, name)
    if hasattr(resolved[0], "image_size") and hasattr(resolved[1], "check_image"):
        resolved[1].check_image(resolved[0].image_size)
    return network, resolved


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


def full_options(name: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return every option of a workload with its value: `scale` and defaults spelt out.

    Building from the result is building from `options`. Raises what `check_workload` raises.

    Example:
        >>> full_options("mamba_sorting", {"scale": "cpu"})["num_examples"]
        100
    """
    _, resolved = _resolve(name, "mse", options or {})
    return {key: value for part in resolved for key, value in asdict(part).items()}


def fetch_data(name: str, options: Mapping[str, Any] | None = None) -> None:
    """See that a workload's data are on this machine, without loading them or JAX.

    Downloads what can be downloaded, once. Raises `DataUnavailable`, saying what to do.
    """
    values = full_options(name, options)
    if WORKLOADS[name].data == "cifar10":
        find_folder(values["data_dir"])
    path = values.get("path")
    if path is not None and not Path(path).expanduser().is_file():
        raise DataUnavailable(f"path must be that of an .npz file, there is none at {path!r}")


def build_workload(name: str, criterion: str = "mse", **options: Any) -> Workload:
    """Build the named workload; the same call gives the same object, so programs are reused.

    Raises what `check_workload` raises, and an error that says what to do where data are missing.

    Example:
        >>> build_workload("digits_mlp", width=16) is build_workload("digits_mlp", width=16)
        True
    """
    check_workload(name, criterion, options)
    values = full_options(name, options)
    return _build(name, criterion, tuple(sorted(values.items())), _fingerprint(values))


def _fingerprint(values: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return time and size of a file of data, so that a rewritten file is read anew."""
    path = Path(values.get("path", "")).expanduser()
    if not path.is_file():
        return None
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


@functools.lru_cache(maxsize=64)
def _build(
    name: str,
    criterion: str,
    options: tuple[tuple[str, Any], ...],
    fingerprint: tuple[int, int] | None,
) -> Workload:
    """Build a workload from all of its options, hashable."""
    del fingerprint
    entry = WORKLOADS[name]
    network, resolved = _resolve(name, criterion, dict(options))
    if entry.data is None or network is None:
        return _module("saddle").build(name, criterion, *resolved)
    data_options, network_options, common = resolved
    data = _module(f"data.{entry.data}").load(data_options)
    built = _module(f"networks.{network}").build(network_options, data)
    return _module("base").supervised(name, criterion, data, built, common)


def _module(name: str) -> Any:
    """Import a module of this package when it is needed."""
    return importlib.import_module(f"cflows_ray.workloads.{name}")
