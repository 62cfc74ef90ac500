"""CIFAR-10 from its binary files: what is read, and what is said about files that are wrong."""

from __future__ import annotations

import os

import numpy as np
import pytest
from tiny import RECORD_BYTES, write_cifar10

from cflows_ray.workloads import build_workload
from cflows_ray.workloads.data.cifar10 import CHANNEL_MEAN, CHANNEL_STD, CIFAR10Options, load
from cflows_ray.workloads.data.cifar10_download import ENVIRONMENT_VARIABLE


def options(folder, **changes):
    values = {"num_examples": 12, "num_classes": 4, "data_dir": str(folder)}
    return CIFAR10Options(**{**values, **changes})


def test_first_examples_of_the_first_classes_in_file_order(tmp_path):
    write_cifar10(tmp_path, per_class=3, batches=2)
    data = load(options(tmp_path, num_examples=16))  # four a class; a file has three
    raw = np.concatenate(
        [np.fromfile(tmp_path / f"data_batch_{i}.bin", np.uint8) for i in (1, 2)]
    ).reshape(-1, RECORD_BYTES)
    expected = [i for i in range(60) if raw[i, 0] < 4 and (raw[:i, 0] == raw[i, 0]).sum() < 4]
    np.testing.assert_array_equal(data.y, raw[expected, 0])
    assert np.bincount(data.y).tolist() == [4, 4, 4, 4]
    # a record holds all red values, then green, then blue, each row by row
    row, column, channel = 5, 7, 2
    byte = raw[expected[9], 1 + channel * 1024 + row * 32 + column]
    value = (byte / 255 - CHANNEL_MEAN[channel]) / CHANNEL_STD[channel]
    assert data.x[9, row, column, channel] == pytest.approx(value, rel=1e-6)
    assert data.x.dtype == np.float32


def test_test_set_has_the_same_classes(tmp_path):
    write_cifar10(tmp_path, per_class=5)
    data = load(options(tmp_path))
    assert np.bincount(data.y_test).tolist() == [5, 5, 5, 5]
    assert np.bincount(load(options(tmp_path, num_test=8)).y_test).tolist() == [2, 2, 2, 2]


def test_any_batch_files_will_do(tmp_path):
    write_cifar10(tmp_path, batches=2)
    (tmp_path / "data_batch_1.bin").unlink()
    assert len(load(options(tmp_path)).x) == 12


def test_binary_targets(tmp_path):
    write_cifar10(tmp_path)
    data = load(options(tmp_path, num_classes=2, binary=True, num_examples=8))
    assert data.y.shape == (8, 1)
    assert data.y.dtype == np.float32
    assert data.y.ravel().tolist() == [-1, 1] * 4
    assert data.num_outputs == 1


def test_downsampling_averages_squares(tmp_path):
    write_cifar10(tmp_path)
    full, half = load(options(tmp_path)), load(options(tmp_path, downsample=2))
    assert half.x.shape == (12, 16, 16, 3)
    np.testing.assert_allclose(half.x[3, 2, 5], full.x[3, 4:6, 10:12].mean(axis=(0, 1)), rtol=1e-5)


def test_folder_from_the_environment(tmp_path, monkeypatch):
    write_cifar10(tmp_path)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    assert len(load(options("")).x) == 12


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "data_batch_1.bin").unlink(), "no data_batch_1.bin"),
        (lambda f: (f / "test_batch.bin").unlink(), "no test_batch.bin"),
        (lambda f: (f / "data_batch_1.bin").write_bytes(b"x" * 4000), "not a multiple of 3073"),
        (lambda f: (f / "data_batch_1.bin").write_bytes(b""), "0 bytes"),
        (lambda f: (f / "data_batch_1.bin").write_bytes(b"\xff" * 3073), "label 255"),
    ],
)
def test_wrong_files_are_named(damage, message, tmp_path):
    write_cifar10(tmp_path)
    damage(tmp_path)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        load(options(tmp_path))


def test_too_few_examples(tmp_path):
    write_cifar10(tmp_path, per_class=6)
    with pytest.raises(ValueError, match=r"num_examples asks for 7 examples of each class.* 6 of"):
        load(options(tmp_path, num_examples=28))


@pytest.mark.skipif(ENVIRONMENT_VARIABLE not in os.environ, reason="needs the real files")
def test_real_files():
    data = build_workload("mlp_cifar10", num_examples=400).problem.data
    assert data["x"].shape == (400, 32, 32, 3)
    # standardised channels of real images
    assert np.abs(data["x"].mean(axis=(0, 1, 2))).max() < 0.5
    assert np.abs(data["x"].std(axis=(0, 1, 2)) - 1).max() < 0.3
