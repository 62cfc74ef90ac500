"""The registry: lookups, validation without JAX, and errors that name the field."""

from __future__ import annotations

import runpy
import subprocess
import sys

import pytest

from cflows_ray.workloads import (
    WORKLOADS,
    build_workload,
    check_data,
    check_workload,
    full_options,
)

SCALED = [name for name in WORKLOADS if getattr(WORKLOADS[name], "cpu", None) is not None]


@pytest.mark.parametrize("name", sorted(set(WORKLOADS) - {"npz"}))
def test_defaults_are_valid(name):
    check_workload(name, "cross_entropy")


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("scale", ["paper", "cpu"])
def test_full_options_spell_out_the_scale(name, scale):
    options = full_options(name, {"scale": scale})
    assert "scale" not in options
    assert full_options(name, options) == options
    changed = full_options(name, {"scale": scale, "num_examples": 40})
    assert changed == {**options, "num_examples": 40}


@pytest.mark.parametrize(
    ("name", "criterion", "options", "message"),
    [
        ("nothing", "mse", {}, r"workload must be one of .*'digits_mlp'.*, got 'nothing'"),
        ("digits_mlp", "hinge", {}, r"criterion must be one of .*, got 'hinge'"),
        ("digits_mlp", "mse", {"widht": 3}, r"option 'widht' is unknown .*'width'"),
        ("digits_mlp", "mse", {"scale": "cpu"}, r"option 'scale' is unknown"),
        ("digits_mlp", "mse", {"width": 0}, r"width must be an integer >= 1, got 0"),
        ("digits_mlp", "mse", {"width": 2.5}, r"width must be an integer >= 1, got 2.5"),
        ("digits_mlp", "mse", {"width": True}, r"width must be an integer"),
        ("digits_mlp", "mse", {"activation": "relu"}, r"activation must be one of"),
        ("digits_mlp", "mse", {"num_examples": 1797}, r"num_examples must be <= 1697, got 1797"),
        ("digits_mlp", "mse", {"ghost_batch": -1}, r"ghost_batch must be an integer >= 0"),
        ("mlp_cifar10", "mse", {"scale": "gpu"}, r"scale must be one of \['paper', 'cpu'\]"),
        ("mlp_cifar10", "mse", {"num_examples": 1001}, r"num_examples must be a multiple of"),
        ("mlp_cifar10", "mse", {"binary": True}, r"num_classes must be 2 if binary, got 4"),
        ("mlp_cifar10", "mse", {"num_classes": 11}, r"num_classes must be <= 10, got 11"),
        ("mlp_cifar10", "mse", {"downsample": 3}, r"downsample must be 1, 2, 4 or 8, got 3"),
        ("mlp_cifar10", "mse", {"data_dir": 3}, r"data_dir must be a path, got 3"),
        ("resnet_cifar10", "mse", {"groups": 5}, r"groups must be a divisor of width = 16"),
        ("resnet_cifar10", "mse", {"stages": [3, 0]}, r"stages must be a list of integers >= 1"),
        ("vit_cifar10", "mse", {"patch": 5}, r"patch must be a divisor of the image size 32"),
        ("vit_cifar10", "mse", {"dim": 30}, r"dim must be a multiple of 4"),
        ("transformer_sorting", "mse", {"heads": 3}, r"heads must be a divisor of dim = 32"),
        ("mamba_sorting", "mse", {"head_scale": "big"}, r"head_scale must be a finite number"),
        ("npz", "mse", {}, r"path must be the path of an .npz file, got ''"),
        ("npz", "mse", {"path": "a.npz", "network": "gpt"}, r"network must be one of"),
        ("npz", "mse", {"path": "a.npz", "patch": 2}, r"option 'patch' is unknown"),
        ("saddle_2d", "mse", {"c": -1.0}, r"c must be >= 0, got -1.0"),
        ("saddle_2d", "mse", {"y0": float("nan")}, r"y0 must be a finite number"),
    ],
)
def test_mistakes_are_named(name, criterion, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        check_workload(name, criterion, options)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=message):
        build_workload(name, criterion, **options)


def test_the_same_call_gives_the_same_object():
    first = build_workload("saddle_2d", c=0.5)
    assert build_workload("saddle_2d", c=0.5) is first
    assert build_workload("saddle_2d", "mse", c=0.5, y0=9.8) is first  # a default spelt out
    assert build_workload("saddle_2d", c=0.25) is not first


@pytest.mark.parametrize("function", [build_workload, check_data])
def test_options_are_checked_once(function, monkeypatch):
    given = []
    kind = type(WORKLOADS["saddle_2d"])
    resolve = kind.resolve

    def counted(self, name, options):
        given.append(name)
        return resolve(self, name, options)

    monkeypatch.setattr(kind, "resolve", counted)
    function("saddle_2d")
    assert given == ["saddle_2d"]


def test_lists_are_as_good_as_tuples():
    """Options come back from JSON with lists."""
    check_workload("resnet_cifar10", "mse", {"stages": [1, 2]})
    assert full_options("resnet_cifar10", {"stages": [1, 2]})["stages"] == (1, 2)


def test_checking_loads_neither_jax_nor_data():
    code = (
        "import sys\n"
        "from cflows_ray.workloads import WORKLOADS, check_workload\n"
        "for name in WORKLOADS:\n"
        "    check_workload(name, 'mse', {'path': 'a.npz'} if name == 'npz' else {})\n"
        "heavy = {'jax', 'flax', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_workloads_are_listed_with_their_options(capsys):
    runpy.run_module("cflows_ray.workloads", run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    shown = dict(zip(lines[::2], lines[1::2], strict=True))
    assert len(shown) == len(WORKLOADS)
    options = shown["vit_cifar10: vision transformer on CIFAR-10"]
    assert options.strip().startswith("scale='paper', num_examples=1000, num_classes=4")
    assert "num_examples=250" in shown["mamba_sorting: Mamba on sorting"]
    assert "path='', network='mlp'" in shown["npz: your own data from an .npz file"]
