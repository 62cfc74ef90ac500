"""The problems that benchmarks run on: the reference network, workloads with and without data."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from cflows_ray.workloads import WORKLOADS, Supervised, Workload, build_workload, full_options
from cflows_ray.workloads.data.cifar10 import CIFAR10Options

DATA = "CFLOWS_CIFAR10_DIR"
REFERENCE_SIZES, REFERENCE_EXAMPLES, REFERENCE_LR = (8, 16, 16, 1), 128, 0.1

# middle learning rates of sweeps/paper_gd.py, mean squared error
LEARNING_RATES = {
    "cpu": {
        "cnn_cifar10": 0.2,
        "resnet_cifar10": 0.07,
        "vit_cifar10": 0.2,
        "transformer_sorting": 0.1,
    },
    "paper": {"cnn_cifar10": 0.02, "resnet_cifar10": 0.02, "vit_cifar10": 0.01},
}
# examples in a slice at paper scale, as in sweeps/paper_studies.py
PAPER_SLICES = {"resnet_cifar10": 250, "vit_cifar10": 250}


def reference_problem(seed: int = 0) -> tuple[Callable[[Any], Array], dict[str, np.ndarray]]:
    """Return loss and parameters of the reference problem: MLP 8-16-16-1, swish, 433 parameters."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((REFERENCE_EXAMPLES, REFERENCE_SIZES[0]))
    y = rng.standard_normal((REFERENCE_EXAMPLES, REFERENCE_SIZES[-1]))
    params = {}
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(REFERENCE_SIZES)):
        params[f"w{i}"] = rng.standard_normal((fan_in, fan_out)) / np.sqrt(fan_in)
        params[f"b{i}"] = np.zeros(fan_out)
    layers = len(REFERENCE_SIZES) - 1

    def loss(p: dict[str, Array]) -> Array:
        hidden = jnp.asarray(x, p["w0"].dtype)
        for i in range(layers):
            hidden = hidden @ p[f"w{i}"] + p[f"b{i}"]
            hidden = jax.nn.swish(hidden) if i < layers - 1 else hidden
        return jnp.mean((hidden - jnp.asarray(y, hidden.dtype)) ** 2)

    return loss, params


def has_cifar10() -> bool:
    """Say whether the environment names a folder with CIFAR-10."""
    return Path(os.environ.get(DATA, "")).joinpath("data_batch_1.bin").is_file()


def random_images(name: str, criterion: str = "mse", **options: Any) -> Workload:
    """Return an image workload of the registry on random images of CIFAR-10's shape."""
    values = full_options(name, options)
    size = 32 // values["downsample"]
    rng = np.random.default_rng(0)
    arrays = {}
    for suffix, count in (("", values["num_examples"]), ("_test", values["num_test"] or 200)):
        arrays[f"x{suffix}"] = rng.standard_normal((count, size, size, 3)).astype(np.float32)
        arrays[f"y{suffix}"] = (np.arange(count) % values["num_classes"]).astype(np.int32)
    of_data = asdict(CIFAR10Options())
    network = {k: v for k, v in values.items() if k not in of_data}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "random.npz")
        np.savez(path, **arrays)  # type: ignore[arg-type]
        recipe = WORKLOADS[name]
        assert isinstance(recipe, Supervised)
        kind = recipe.kind().name
        return build_workload("npz", criterion, path=path, network=kind, **network)


def images(name: str, **options: Any) -> tuple[Workload, str]:
    """Return an image workload, on CIFAR-10 if it is there, and what it is on."""
    if has_cifar10():
        return build_workload(name, **options), "CIFAR-10"
    return random_images(name, **options), "random images"
