"""The registry of workloads: checking, finding, looking at and building them by name."""

from __future__ import annotations

import functools
import hashlib
import os.path
from collections.abc import Mapping
from typing import Any

from cflows_ray.checks import ConfigError, one_of
from cflows_ray.registry import Registry
from cflows_ray.workloads.base import Recipe, Workload, as_mapping
from cflows_ray.workloads.criteria import CRITERIA
from cflows_ray.workloads.supervised import Supervised, stamp

_CIFAR_CPU = {"num_examples": 200, "num_test": 200, "downsample": 2}
_SORTING_CPU = {"num_examples": 200, "num_test": 200}

WORKLOADS: Registry[Recipe] = Registry(
    "workload",
    "cflows_ray.workloads",
    {
        "digits_mlp": Supervised(
            "MLP on scikit-learn's handwritten digits",
            "digits",
            "mlp",
            defaults={"width": 32, "depth": 2, "zero_head": True},
        ),
        "saddle_2d": "cflows_ray.workloads.saddle:SADDLE",
        "valley_2d": "cflows_ray.workloads.valley:VALLEY_2D",
        "valley_3d": "cflows_ray.workloads.valley:VALLEY_3D",
        "mlp_cifar10": Supervised(
            "MLP on CIFAR-10", "cifar10", "mlp", cpu={**_CIFAR_CPU, "width": 32}
        ),
        "cnn_cifar10": Supervised(
            "convolutional network on CIFAR-10", "cifar10", "cnn", cpu={**_CIFAR_CPU, "width": 8}
        ),
        "resnet_cifar10": Supervised(
            "residual network with group norm on CIFAR-10",
            "cifar10",
            "resnet",
            cpu={**_CIFAR_CPU, "num_examples": 100, "stages": (1, 1), "width": 8, "groups": 4},
        ),
        "vit_cifar10": Supervised(
            "vision transformer on CIFAR-10",
            "cifar10",
            "vit",
            cpu={**_CIFAR_CPU, "dim": 16, "depth": 2, "heads": 2, "head_dim": 8, "mlp_dim": 32},
        ),
        "lstm_sorting": Supervised(
            "LSTM on sorting",
            "sorting",
            "lstm",
            cpu={**_SORTING_CPU, "embedding": 16, "hidden": 16},
        ),
        "transformer_sorting": Supervised(
            "causal transformer on sorting",
            "sorting",
            "transformer",
            cpu={**_SORTING_CPU, "layers": 2, "dim": 16, "heads": 2, "mlp_ratio": 2},
        ),
        "mamba_sorting": Supervised(
            "Mamba on sorting",
            "sorting",
            "mamba",
            defaults={"num_examples": 250},
            cpu={**_SORTING_CPU, "num_examples": 100, "dim": 16, "state": 4},
        ),
        "npz": Supervised("your own data from an .npz file", "npz"),
    },
)


def _resolve(
    name: str, options: Mapping[str, Any] | None, criterion: str = "mse"
) -> tuple[Recipe, list[Any]]:
    """Return a workload's recipe and its checked options; the criterion is checked as well."""
    one_of("workload", name, sorted(WORKLOADS))
    one_of("criterion", criterion, CRITERIA)
    recipe = WORKLOADS[name]
    return recipe, recipe.resolve(name, options or {})


def check_workload(
    name: str, criterion: str = "mse", options: Mapping[str, Any] | None = None
) -> None:
    """Validate a request for a workload without loading data or JAX.

    Raises `ValueError` naming the field for an unknown workload, criterion or option and for a
    value that is not allowed.

    Example:
        >>> check_workload("digits_mlp", "mse", {"width": 16})
    """
    _resolve(name, options, criterion)


def full_options(name: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return every option of a workload with its value: `scale` and defaults spelt out.

    Building from the result is building from `options`. Raises what `check_workload` raises.

    Example:
        >>> full_options("mamba_sorting", {"scale": "cpu"})["num_examples"]
        100
    """
    return as_mapping(_resolve(name, options)[1])


def fetch_data(name: str, options: Mapping[str, Any] | None = None) -> None:
    """See that a workload's data are on this machine, without loading them or JAX.

    Downloads what can be downloaded, once. Raises `DataUnavailable`, saying what to do.
    """
    recipe, resolved = _resolve(name, options)
    recipe.fetch(*resolved)


def check_data(name: str, criterion: str = "mse", options: Mapping[str, Any] | None = None) -> None:
    """See that a workload's data fit its network and criterion, with NumPy only.

    Raises what `fetch_data` raises, and `ConfigError` saying in one line of which data what is
    wrong.

    Example:
        >>> check_data("digits_mlp", "cross_entropy")
    """
    recipe, resolved = _resolve(name, options, criterion)
    recipe.fetch(*resolved)
    try:
        recipe.check_data(name, criterion, *resolved)
    except ValueError as error:
        raise ConfigError(f"{recipe.describe(name, *resolved)}: {error}") from error


def data_fingerprint(name: str, options: Mapping[str, Any] | None = None) -> str | None:
    """Return a hash of the data as the network will see them; None for a workload without data.

    It is of the arrays' values, shapes and types after all preparation, so it tells data that were
    replaced, and a preparation that has changed, and is the same for the same data under another
    path. 16 hexadecimal digits of SHA-256. Files are read again only when they have changed.

    Raises what `check_data` raises for "mse".

    Example:
        >>> len(data_fingerprint("digits_mlp"))
        16
        >>> data_fingerprint("saddle_2d")
    """
    recipe, resolved = _resolve(name, options)
    recipe.fetch(*resolved)
    return _fingerprint(recipe, name, tuple(resolved), stamp(recipe.files(*resolved)))


@functools.lru_cache(maxsize=1024)
def _fingerprint(
    recipe: Recipe, name: str, resolved: tuple[Any, ...], key: tuple[Any, ...]
) -> str | None:
    """Hash the arrays of a workload; files that have changed have another key."""
    del key
    arrays = recipe.arrays(name, *resolved)
    digest = hashlib.sha256()
    for part, values in sorted(arrays.items()):
        digest.update(f"{part} {values.dtype.str} {values.shape};".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()[:16] if arrays else None


def resolve_paths(name: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return options with relative paths made absolute, for a process in another folder.

    For what is carried out, not for what is recorded: a run id hashes the path as it was given.
    `~` is left to each machine.

    Example:
        >>> resolve_paths("npz", {"path": "/data/../data/task.npz"})
        {'path': '/data/task.npz'}
    """
    recipe, resolved = _resolve(name, options)
    given = dict(options or {})
    for path in recipe.paths(*resolved):
        if given.get(path) and not given[path].startswith("~"):
            given[path] = os.path.abspath(given[path])
    return given


def describe(name: str, options: Mapping[str, Any] | None = None) -> str:
    """Return a few words for messages that tell a workload from others of its name.

    Example:
        >>> describe("npz", {"path": "/data/task.npz", "network": "cnn"})
        'npz(task.npz)/cnn'
    """
    recipe, resolved = _resolve(name, options)
    return recipe.describe(name, *resolved)


def build_workload(name: str, criterion: str = "mse", **options: Any) -> Workload:
    """Build the named workload; the same call gives the same object, so programs are reused.

    Files that have changed are read anew. Raises what `check_workload` raises, and an error that
    says what to do where data are missing.

    Example:
        >>> build_workload("digits_mlp", width=16) is build_workload("digits_mlp", width=16)
        True
    """
    recipe, resolved = _resolve(name, options, criterion)
    return _build(recipe, name, criterion, tuple(resolved), stamp(recipe.files(*resolved)))


@functools.lru_cache(maxsize=64)
def _build(
    recipe: Recipe, name: str, criterion: str, resolved: tuple[Any, ...], key: tuple[Any, ...]
) -> Workload:
    """Build a workload; files that have changed have another key."""
    del key
    return recipe.build(name, criterion, *resolved)
