"""Every registered workload at a size that a test can afford, and fake CIFAR-10 files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

RECORD_BYTES = 3073

_CIFAR = {"num_examples": 12, "num_test": 8}
_SORTING = {"num_examples": 7, "num_test": 5, "length": 3}

# Options by workload; `data_dir` and `path` are added by `tiny_options`.
TINY: dict[str, dict[str, Any]] = {
    "digits_mlp": {"num_examples": 12, "width": 5},
    "saddle_2d": {},
    "valley_2d": {},
    "valley_3d": {},
    "mlp_cifar10": {**_CIFAR, "downsample": 8, "width": 3},
    "cnn_cifar10": {**_CIFAR, "downsample": 8, "width": 2},
    "resnet_cifar10": {**_CIFAR, "downsample": 4, "stages": (1, 1), "width": 4, "groups": 2},
    "vit_cifar10": {
        **_CIFAR,
        "downsample": 4,
        "dim": 8,
        "depth": 1,
        "heads": 2,
        "head_dim": 3,
        "mlp_dim": 5,
    },
    "lstm_sorting": {**_SORTING, "embedding": 3, "hidden": 4},
    "transformer_sorting": {**_SORTING, "layers": 1, "dim": 8, "heads": 2, "mlp_ratio": 1},
    "mamba_sorting": {**_SORTING, "layers": 1, "dim": 4, "state": 3},
    "npz": {"network": "mlp", "width": 4, "depth": 1},
}


def write_cifar10(folder: Path, per_class: int = 6, batches: int = 1) -> Path:
    """Write fake files in CIFAR-10's binary format: classes in turn, random pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    names = [f"data_batch_{i + 1}.bin" for i in range(batches)] + ["test_batch.bin"]
    for name in names:
        records = rng.integers(0, 256, size=(10 * per_class, RECORD_BYTES)).astype(np.uint8)
        records[:, 0] = np.arange(10 * per_class) % 10
        records.tofile(folder / name)
    return folder


def write_npz(path: Path) -> Path:
    """Write a small classification task of three classes in six dimensions."""
    rng = np.random.default_rng(0)
    y = np.arange(15) % 3
    x = rng.normal(size=(15, 6)) + y[:, None]
    np.savez(path, x=x[:11], y=y[:11], x_test=x[11:], y_test=y[11:])
    return path


def tiny_options(name: str, folder: Path) -> dict[str, Any]:
    """Options of a workload's tiny version, its files written under `folder` when missing."""
    options = dict(TINY[name])
    if name.endswith("_cifar10"):
        data_dir = folder / "cifar"
        if not data_dir.exists():
            write_cifar10(data_dir)
        options["data_dir"] = str(data_dir)
    if name == "npz":
        path = folder / "task.npz"
        if not path.exists():
            write_npz(path)
        options["path"] = str(path)
    return options
