"""What can be given that should not: a table of mistakes, each with the line that must be said.

Nothing here compiles: a mistake of a person's is said before that. What only data or a run show
stands in `paired/test_mistakes.py`, `paired/test_remarks.py`, `workloads/` and `analysis/`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import analysis
from cflows_ray import GradientDescent, PairedOptions, PairedRun, Problem, run_paired
from cflows_ray.rules import Adam, RMSProp
from cflows_ray.sweep import Execution, Grid, SweepConfig
from cflows_ray.sweep.run_config import RunConfig
from cflows_ray.workloads import DataUnavailable, check_data, check_workload

W = np.ones(3)


def run(loss=jnp.sum, params=W, rule=GradientDescent(0.1), **more):  # noqa: B008
    return run_paired(loss, params, rule, **{"steps": 2, "flows": ("stable",), **more})


LOSSES = [
    (3, "loss_fn must be callable, got 3"),
    ("mse", "loss_fn must be callable, got 'mse'"),
    (lambda w: w, "loss_fn must return a scalar, got an array of shape (3,)"),
    (lambda w: jnp.sum(w, keepdims=True), "loss_fn must return a scalar, got an array of shape"),
    (lambda w: (jnp.sum(w), w), "loss_fn must return a scalar, got a PyTreeDef"),
    (lambda w: {"loss": jnp.sum(w)}, "loss_fn must return a scalar, got a PyTreeDef"),
    (lambda _: None, "loss_fn must return a scalar, got a"),
    (lambda _: jnp.int32(1), "loss_fn must return a floating-point number, got int32"),
    (lambda w: jnp.sum(w) > 0, "loss_fn must return a floating-point number, got bool"),
    (lambda w: jnp.sum(w) + 0j, "loss_fn must return a floating-point number, got complex64"),
    (lambda w: jnp.sum(w) * np.random.default_rng().random(), "loss_fn must be a pure function"),
]  # fmt: skip


@pytest.mark.parametrize(("loss", "words"), LOSSES)
def test_losses(loss, words):
    said(words, lambda: run(loss))


PARAMS = [
    (np.arange(3), "params must hold floating-point arrays, got int64 at the root"),
    ({"a": {"b": W > 0}}, "params must hold floating-point arrays, got bool at ['a']['b']"),
    ([W, 1j * W], "params must hold floating-point arrays, got complex128 at [1]"),
    ({"a": 1}, "params must hold floating-point arrays, got int64 at ['a']"),
    ("weights.npz", "params must hold floating-point arrays, got <U11 at the root"),
    ([np.array([None])], "params must hold floating-point arrays, got object at [0]"),
    ({}, "params must hold at least one number, got none"),
    (None, "params must hold at least one number, got none"),
    (np.zeros((0, 3)), "params must hold at least one number, got none"),
    (np.array([1, np.nan]), "params must be finite in float32, got nan"),
    ({"a": W, "b": -np.inf * W}, "params must be finite in float32, got -inf at ['b']"),
    ([1e39], "params must be finite in float32, got inf at [0]"),
]  # fmt: skip


@pytest.mark.parametrize(("params", "words"), PARAMS)
def test_parameters(params, words):
    def loss(p):
        return sum(map(jnp.sum, jax.tree.leaves(p)))

    said(words, lambda: run(loss, params))


GIVEN = [
    (np.array([2**32 + 1, 0]), "data must hold integers of 32 bits in a float32 run, got 429496"),
    ({"y": np.array([-(2**31) - 1])}, "got -2147483649 at ['y']"),
    ([np.array([2**32], np.uint64)], "got 4294967296 at [0]"),
]


@pytest.mark.parametrize(("data", "words"), GIVEN)
def test_given_data(data, words):
    said(words, lambda: run(lambda w, _: jnp.sum(w), data=data))


RULES = [
    (lambda: GradientDescent(0), "lr must be > 0, got 0"),
    (lambda: GradientDescent(-0.1), "lr must be > 0, got -0.1"),
    (lambda: GradientDescent(np.nan), "lr must be > 0, got nan"),
    (lambda: GradientDescent(np.inf), "lr must be > 0, got inf"),
    (lambda: GradientDescent("0.1"), "lr must be > 0, got '0.1'"),
    (lambda: GradientDescent(None), "lr must be > 0, got None"),
    (lambda: GradientDescent(True), "lr must be > 0, got True"),
    (lambda: GradientDescent([0.1]), "lr must be > 0, got [0.1]"),
    (lambda: GradientDescent(np.array([0.1])), "lr must be > 0, got array([0.1])"),
    (lambda: GradientDescent(jnp.float32(-1)), "lr must be > 0, got -1.0"),
    (lambda: GradientDescent(0.1j), "lr must be > 0, got 0.1j"),
    (lambda: GradientDescent(0.1, momentum=1.0), "momentum must be >= 0 and < 1, got 1.0"),
    (lambda: GradientDescent(0.1, momentum=-0.1), "momentum must be >= 0 and < 1, got -0.1"),
    (lambda: GradientDescent(0.1, weight_decay=-1), "weight_decay must be"),
    (lambda: GradientDescent(0.1, nesterov=1), "nesterov must be True or False, got 1"),
    (lambda: GradientDescent(0.1, schedule="step"), "schedule must be"),
    (lambda: GradientDescent(0.1, schedule="cosine:0"), "schedule must be"),
    (lambda: GradientDescent(0.1, schedule="linear_warmup:1.5"), "schedule must be"),
    (lambda: RMSProp(0.1, beta2=1.0), "beta2 must be > 0 and < 1, got 1.0"),
    (lambda: RMSProp(0.1, beta2=0), "beta2 must be > 0 and < 1, got 0"),
    (lambda: RMSProp(0.1, eps=0.0), "eps must be > 0, got 0.0"),
    (lambda: RMSProp(0.1, bias_correction="yes"), "bias_correction must be True or False"),
    (lambda: Adam(0.1, beta1=1.5), "beta1 must be"),
    (lambda: run(rule="sgd"), "rule must be an update rule such as GradientDescent, got 'sgd'"),
    (lambda: run(rule=GradientDescent), "rule must be an update rule such as GradientDescent"),
    (lambda: run(rule=0.1), "rule must be an update rule such as GradientDescent, got 0.1"),
    (lambda: run(rule=RMSProp(0.1, beta2=0.1)), "beta2 must be > h / (1 + h)"),
    (lambda: run(rule=RMSProp(0.1, eps=1e-60)), "eps must be 1.18e-38 to 3.4e+38 in float32"),
    (lambda: run(rule=GradientDescent(1e60)), "lr must be 1.18e-38 to 3.4e+38 in float32"),
]


@pytest.mark.parametrize(("make", "words"), RULES)
def test_rules(make, words):
    said(words, make)


SETTINGS = [
    ({"steps": 0}, "steps must be an integer >= 1, got 0"),
    ({"steps": 10.0}, "steps must be an integer >= 1, got 10.0"),
    ({"steps": 2**31}, "steps must be <= 2147483647, got 2147483648"),
    ({"warmup": -1}, "warmup must be an integer >= 0, got -1"),
    ({"seed": "0"}, "seed must be an integer >= 0, got '0'"),
    ({"seed": 2**63}, "seed must be <= 9223372036854775807"),
    ({"num_eigs": 0}, "num_eigs must be an integer >= 1, got 0"),
    ({"substeps": 1.5}, "substeps must be an integer >= 1, got 1.5"),
    ({"record_every": False}, "record_every must be an integer >= 1, got False"),
    ({"dtype": "bfloat16"}, "dtype must be one of ['float32', 'float64'], got 'bfloat16'"),
    ({"dtype": jnp.float32}, "dtype must be one of"),
    ({"flows": ("middle",)}, "flows must be one of"),
    ({"flows": ("stable", "stable")}, "flows must be free of repetitions, got 'stable'"),
    ({"flows": ("discrete",)}, "flows must be one of"),
    ({"progress": "no"}, "progress must be True or False, got 'no'"),
]


@pytest.mark.parametrize(("settings", "words"), SETTINGS)
def test_settings(settings, words):
    said(words, lambda: run(**settings))


OPTIONS = [
    ({"divergence_factor": 0}, "divergence_factor must be > 0, got 0"),
    ({"sharpness_limit": np.nan}, "sharpness_limit must be > 0, got nan"),
    ({"critical_threshold": 2.5}, "tracking_threshold < near_threshold <= critical_threshold"),
    ({"max_eigs": 0}, "max_eigs must be"),
    ({"predict_observables": 1}, "predict_observables must be True or False, got 1"),
]


@pytest.mark.parametrize(("options", "words"), OPTIONS)
def test_options(options, words):
    said(words, lambda: PairedOptions(**options))


def test_a_run_that_was_not_started():
    with pytest.raises(RuntimeError, match="the run must be started first"):
        _ = PairedRun(Problem(lambda w, _: w.sum()), GradientDescent(0.1), PairedOptions()).program


DIGITS = {"num_examples": 12, "width": 5}
WORKLOADS = [
    (("mnist", "mse", {}), "workload must be one of"),
    (("digits_mlp", "hinge", {}), "criterion must be one of"),
    (("digits_mlp", "mse", {"widht": 5}), "widht"),
    (("digits_mlp", "mse", {"width": 0}), "width must be an integer >= 1, got 0"),
    (("digits_mlp", "mse", {"num_examples": -1}), "num_examples must be an integer >= 10, got -1"),
    (("cnn_cifar10", "mse", {"scale": "large"}), "scale must be one of ['paper', 'cpu'], got"),
    (("cnn_cifar10", "mse", {"downsample": 3}), "downsample must be"),
    (("npz", "mse", {"path": "a.npz", "network": "gru"}), "network must be one of"),
    (("npz", "mse", {"path": 3}), "path must be"),
]


@pytest.mark.parametrize(("asked", "words"), WORKLOADS)
def test_workloads(asked, words):
    said(words, lambda: check_workload(*asked))


X = np.random.default_rng(0).standard_normal((6, 4))
LABELS = np.array([0, 1, 2, 0, 1, 2])
DATA = [
    ({"x": X}, "mse", "y"),
    ({"y": LABELS}, "mse", "x"),
    ({"x": X, "y": LABELS[:5]}, "mse", "5"),
    ({"x": X[:0], "y": LABELS[:0]}, "mse", "x must"),
    ({"x": X * np.nan, "y": LABELS}, "mse", "x must"),
    ({"x": X, "y": LABELS * 1000}, "mse", "y must"),
    ({"x": X, "y": LABELS + 1}, "mse", "y must"),
    ({"x": X, "y": LABELS - 5}, "mse", "y must"),
    ({"x": X, "y": LABELS + 2**33}, "mse", "y must"),
    ({"x": X, "y": 0 * LABELS}, "cross_entropy", "at least two classes, y has one"),
    ({"x": X, "y": X[:, :1, None]}, "mse", "y must"),
    ({"x": X, "y": np.array(list("abcabc"))}, "mse", "y must"),
    ({"x": X, "y": np.array([None] * 6)}, "mse", "y"),
    ({"x": X, "y": LABELS, "x_test": X[:, :3], "y_test": LABELS}, "mse", "x_test must"),
    ({"x": X, "y": LABELS, "y_test": LABELS}, "mse", "x_test"),
]


@pytest.mark.parametrize(("arrays", "criterion", "words"), DATA)
def test_data(arrays, criterion, words, tmp_path):
    path = tmp_path / "task.npz"
    np.savez(path, **arrays)
    options = {"path": str(path), "network": "mlp", "width": 3, "depth": 1}
    said(words, lambda: check_data("npz", criterion, options))


FILES = [
    ("missing.npz", None, "path must be that of an .npz file, there is none at"),
    ("text.npz", b"x,y\n1,2\n", "text.npz"),
    ("empty.npz", b"", "empty.npz"),
]


@pytest.mark.parametrize(("name", "content", "words"), FILES)
def test_data_files(name, content, words, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    said(words, lambda: check_data("npz", "mse", {"path": str(tmp_path / name)}))


def grid(**changes):
    given = {"workload": "saddle_2d", "rule": "gradient_descent", "lrs": (0.1, 0.2)}
    return Grid(**(given | changes))


def sweep(grids=None, **changes):
    return SweepConfig(**({"name": "s", "grids": grids or (grid(),), "steps": 5} | changes))


STUDIES = [
    (lambda: grid(lrs=0.1), "lrs must be a sequence, got 0.1"),
    (lambda: grid(lrs=()), "lrs must be a non-empty sequence, got ()"),
    (lambda: grid(lrs=(0.1, 0.1)), "lrs must be free of repetitions, got '0.1'"),
    (lambda: grid(lrs=(0.1, -1)), "lrs must be > 0, got -1"),
    (lambda: grid(lrs="0.1"), "lrs must be a sequence, got '0.1'"),
    (lambda: grid(seeds=(0, 0)), "seeds must be free of repetitions, got '0'"),
    (lambda: grid(seeds=(-1,)), "seeds must be an integer >= 0, got -1"),
    (lambda: sweep((grid(rule="sgd"),)), "rule must be one of"),
    (lambda: sweep((grid(beta2=0.9),)), "beta2 must be left out for gradient_descent, got 0.9"),
    (lambda: sweep((grid(), grid(lrs=(0.2, 0.3)))), "grids must not give a run twice"),
    (lambda: sweep(name="a/b"), "name must be letters, digits"),
    (lambda: sweep(name=""), "name must be letters, digits"),
    (lambda: sweep(seeds=()), "seeds must be a non-empty sequence"),
    (lambda: sweep(steps=0), "steps must be an integer >= 1, got 0"),
    (lambda: sweep().only(["vit_cifar10"]), "only must be one of"),
    (lambda: sweep((grid(rule="rmsprop", eps=1e-60),)), "eps must be 1.18e-38 to 3.4e+38"),
    (lambda: Execution(chunk_steps=0), "chunk_steps must be"),
    (lambda: RunConfig("saddle_2d", "adam", 0.1, flows="central"), "flows must be a sequence"),
    (lambda: RunConfig("saddle_2d", "adam", None), "lr must be > 0, got None"),
]


@pytest.mark.parametrize(("make", "words"), STUDIES)
def test_studies(make, words):
    said(words, make)


@pytest.mark.parametrize("kind", ["missing", "empty", "a file", "other files"])
def test_results_folders(kind, tmp_path):
    folder = tmp_path / "results"
    if kind == "a file":
        folder.write_text("x")
    elif kind != "missing":
        folder.mkdir()
    if kind == "other files":
        (folder / "notes.txt").write_text("x")
    with pytest.raises((ValueError, OSError), match="results") as error:
        analysis.load(str(folder))
    assert "\n" not in str(error.value)


def said(words, action):
    """Check that an action is refused in one line that has these words."""
    with pytest.raises((ValueError, DataUnavailable)) as error:
        action()
    message = str(error.value)
    assert words in message
    assert "\n" not in message
