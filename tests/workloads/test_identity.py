"""What tells data apart: fingerprints of content, paths that every process reads alike, names."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from tiny import TINY, tiny_options, write_cifar10, write_npz

from cflows_ray.workloads import (
    build_workload,
    data_fingerprint,
    describe,
    full_options,
    resolve_paths,
)


def rewrite(path, **changes):
    """Change some arrays of a file; its time moves on, as it does between two sweeps."""
    arrays = {**np.load(path), **changes}
    before = path.stat().st_mtime_ns
    np.savez(path, **arrays)
    os.utime(path, ns=(before + 1_000_000, before + 1_000_000))


@pytest.mark.parametrize("name", sorted(TINY))
def test_every_workload_has_one(name, tmp_path):
    options = tiny_options(name, tmp_path)
    found = data_fingerprint(name, options)
    if name in ("saddle_2d", "valley_2d", "valley_3d"):
        assert found is None
        return
    assert len(found) == 16
    assert int(found, 16) >= 0
    assert data_fingerprint(name, full_options(name, options)) == found


def test_values_shapes_and_kinds_each_count(tmp_path):
    path = write_npz(tmp_path / "task.npz")
    options = {"path": str(path)}
    arrays = dict(np.load(path))
    seen = {data_fingerprint("npz", options)}
    for changes in (
        {"x": arrays["x"] + 1},
        {"y": (arrays["y"] + 1) % 3},
        {"y": arrays["y"].astype(float)},
        {"x_test": arrays["x_test"] + 1},
        {"y_test": (arrays["y_test"] + 1) % 3},
        {"x": arrays["x"][:, :, None], "x_test": arrays["x_test"][:, :, None]},
    ):
        rewrite(path, **{**arrays, **changes})
        if "y" in changes and changes["y"].dtype == float:
            rewrite(path, y_test=arrays["y_test"].astype(float))
        seen.add(data_fingerprint("npz", options))
    assert len(seen) == 7
    rewrite(path, **arrays)
    assert data_fingerprint("npz", options) in seen  # the first again


def test_the_same_arrays_have_the_same_wherever_and_however_they_are_stored(tmp_path):
    path = write_npz(tmp_path / "task.npz")
    arrays = dict(np.load(path))
    found = data_fingerprint("npz", {"path": str(path)})
    other = tmp_path / "other.npz"
    np.savez_compressed(other, **{k: np.asfortranarray(v) for k, v in arrays.items()}, note=[1])
    assert data_fingerprint("npz", {"path": str(other), "width": 9}) == found
    big = {k: v.astype(v.dtype.newbyteorder(">")) for k, v in arrays.items()}
    np.savez(other, **big)
    assert data_fingerprint("npz", {"path": str(other)}) == found
    np.savez(other, **{**arrays, "y": arrays["y"][:, None], "y_test": arrays["y_test"][:, None]})
    assert data_fingerprint("npz", {"path": str(other)}) == found  # the same classes


def test_a_folder_of_cifar10_that_changes(tmp_path):
    folder = write_cifar10(tmp_path)
    options = {"data_dir": str(folder), "num_examples": 12, "num_test": 8}
    found = data_fingerprint("mlp_cifar10", options)
    assert data_fingerprint("cnn_cifar10", options) == found
    assert data_fingerprint("mlp_cifar10", {**options, "num_examples": 16}) != found
    assert data_fingerprint("mlp_cifar10", {**options, "downsample": 2}) != found
    first = build_workload("mlp_cifar10", width=3, **options)
    file = folder / "data_batch_1.bin"
    raw = np.fromfile(file, np.uint8)
    raw[5] ^= 255
    before = file.stat().st_mtime_ns
    raw.tofile(file)
    os.utime(file, ns=(before + 1_000_000, before + 1_000_000))
    assert data_fingerprint("mlp_cifar10", options) != found
    again = build_workload("mlp_cifar10", width=3, **options)
    assert again is not first
    assert not np.array_equal(again.problem.data["x"], first.problem.data["x"])


def test_it_is_the_same_in_another_process_and_loads_no_jax(tmp_path):
    path = write_npz(tmp_path / "task.npz")
    code = (
        "import sys\n"
        "from cflows_ray.workloads import data_fingerprint\n"
        f"print(data_fingerprint('npz', {{'path': {str(path)!r}}}))\n"
        "print(data_fingerprint('lstm_sorting'), data_fingerprint('digits_mlp'))\n"
        "assert 'jax' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    here = [data_fingerprint("npz", {"path": str(path)})]
    here += [data_fingerprint("lstm_sorting"), data_fingerprint("digits_mlp")]
    assert done.stdout.split() == here
    assert len(set(here)) == 3


def test_an_unchanged_file_is_read_once(tmp_path, monkeypatch):
    path = write_npz(tmp_path / "task.npz")
    first = data_fingerprint("npz", {"path": str(path)})
    monkeypatch.setattr(np, "load", None)
    assert data_fingerprint("npz", {"path": str(path)}) == first


def test_relative_paths_become_absolute_and_nothing_else_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_npz(tmp_path / "task.npz")
    options = {"path": "task.npz", "width": 3}
    resolved = resolve_paths("npz", options)
    assert resolved == {"path": str(tmp_path / "task.npz"), "width": 3}
    assert options["path"] == "task.npz"
    monkeypatch.chdir("/")
    assert build_workload("npz", **resolved).problem.data["x"].shape == (11, 6)
    assert resolve_paths("npz", resolved) == resolved
    # each machine has its own home; an empty path is no path
    assert resolve_paths("npz", {"path": "~/task.npz"}) == {"path": "~/task.npz"}
    assert resolve_paths("mlp_cifar10", {"data_dir": ""}) == {"data_dir": ""}
    assert resolve_paths("mlp_cifar10", {"data_dir": "c"}) == {"data_dir": "/c"}
    assert resolve_paths("saddle_2d", {"c": 1.0}) == {"c": 1.0}


def test_a_relative_path_in_another_folder_is_another_file(tmp_path, monkeypatch):
    """Even of one size and time."""
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        np.savez("task.npz", x=np.full((4, 2), ord(name)), y=np.arange(4) % 2)
        os.utime("task.npz", ns=(10**18, 10**18))
        found.append(data_fingerprint("npz", {"path": "task.npz"}))
    assert found[0] != found[1]


def test_runs_on_different_files_read_differently():
    assert describe("npz", {"path": "/a/task.npz"}) == "npz(task.npz)/mlp"
    assert describe("npz", {"path": "b.npz", "network": "cnn"}) == "npz(b.npz)/cnn"
    assert describe("digits_mlp") == "digits_mlp"
    assert describe("mlp_cifar10", {"scale": "cpu"}) == "mlp_cifar10"
    assert describe("mlp_cifar10", {"data_dir": "/a/cifar"}) == "mlp_cifar10(cifar)"
