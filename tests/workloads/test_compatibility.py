"""Where data meet a network: shapes and kinds that would broadcast, or mean something else.

Right values are NumPy's, in float64, from the network's outputs and the targets as they are meant.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray.checks import ConfigError
from cflows_ray.workloads import (
    WORKLOADS,
    DataSet,
    DataSource,
    DataUnavailable,
    Network,
    NetworkKind,
    Supervised,
    build_workload,
    check_data,
    data_fingerprint,
)
from cflows_ray.workloads.criteria import correct, cross_entropy, mse
from cflows_ray.workloads.data.digits import DigitsOptions

N, C = 12, 3
LABELS = np.arange(N) % C
SIGNS = 2 * (np.arange(N) % 2) - 1


def task(path, y, x=None, **more):
    """Write a file of N examples of four numbers (or `x`) with targets y."""
    rng = np.random.default_rng(0)
    np.savez(path, x=rng.normal(size=(len(y), 4)) if x is None else x, y=y, **more)
    return str(path)


def built(path, criterion):
    """Build an MLP on a file; its outputs at some point, its loss and its accuracy."""
    workload = build_workload("npz", criterion, path=path, width=4, depth=1)
    problem = workload.problem
    params = workload.init(1)
    outputs = np.asarray(problem.outputs(params, problem.data["x"]), np.float64)
    loss = float(problem.loss(params, problem.data))
    return outputs, loss, float(problem.accuracy(params, problem.data))


def expected(outputs, labels, criterion):
    """Loss and accuracy of class labels, in float64."""
    n = len(labels)
    if criterion == "mse":
        loss = 0.5 * np.mean(np.sum((outputs - np.eye(C)[labels]) ** 2, axis=1))
    else:
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(shifted).sum(axis=1))
        loss = np.mean(log_sum - shifted[np.arange(n), labels])
    return loss, np.mean(outputs.argmax(axis=1) == labels)


FORMS_OF_LABELS = {
    "(n,)": LABELS,
    "(n, 1), as Keras hands CIFAR-10 out": LABELS[:, None],
    "uint8 (n, 1)": LABELS[:, None].astype(np.uint8),
    "uint64 (n,)": LABELS.astype(np.uint64),
    "integer one-hot": np.eye(C, dtype=int)[LABELS],
    "uint8 one-hot": np.eye(C, dtype=np.uint8)[LABELS],
    "boolean one-hot": np.eye(C, dtype=bool)[LABELS],
    "float one-hot": np.eye(C)[LABELS],
}


@pytest.mark.parametrize("criterion", ["mse", "cross_entropy"])
@pytest.mark.parametrize("form", FORMS_OF_LABELS)
def test_every_form_of_labels_gives_the_same_loss(form, criterion, tmp_path):
    y = FORMS_OF_LABELS[form]
    path = task(tmp_path / "task.npz", y)
    check_data("npz", criterion, {"path": path})
    outputs, loss, accuracy = built(path, criterion)
    assert outputs.shape == (N, C)
    right_loss, right_accuracy = expected(outputs, LABELS, criterion)
    assert loss == pytest.approx(right_loss, rel=1e-5)
    assert accuracy == pytest.approx(right_accuracy)


@pytest.mark.parametrize("criterion", ["mse", "cross_entropy"])
@pytest.mark.parametrize("y", [SIGNS, SIGNS[:, None], SIGNS.astype(np.int8), SIGNS * 1.0])
def test_signs_are_a_binary_task(y, criterion, tmp_path):
    outputs, loss, accuracy = built(task(tmp_path / "task.npz", y), criterion)
    assert outputs.shape == (N, 1)
    gap = outputs[:, 0] * SIGNS
    losses = {"mse": 0.5 * (outputs[:, 0] - SIGNS) ** 2, "cross_entropy": np.log1p(np.exp(-gap))}
    assert loss == pytest.approx(losses[criterion].mean(), rel=1e-5)
    assert accuracy == pytest.approx(np.mean(gap > 0))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.ones((N, 1, 1)), r"y must be \(n,\) or \(n, c\) where it is float.*\(12, 1, 1\)"),
        (LABELS[:, None, None], r"y must be classes \(n,\) or one-hot rows.*\(12, 1, 1\)"),
        (np.stack([LABELS, LABELS], 1), r"y must be classes \(n,\) or one-hot rows.*\(12, 2\)"),
        (np.zeros((N, 3), int), r"y must be classes \(n,\) or one-hot rows.*\(12, 3\)"),
        (np.array([1000, 2000] * 6), r"y must be classes 0 \.\. c - 1, all in use, got 2 .* 2000"),
        (1 + LABELS, r"y must be classes 0 \.\. c - 1, all in use, got 3 different ones up to 3"),
        (np.array([[0], [2]] * 6), r"y must be classes 0 \.\. c - 1, all in use, got 2 .* up to 2"),
        (np.where(LABELS, 2**32 + 1, 0), r"y must be <= 2147483647 .* got 4294967297"),
        (np.where(LABELS, 2**63 + 1, 0).astype(np.uint64), "y must be <= 2147483647"),
        (np.where(LABELS, -1, 2), r"y must be >= 0, or -1 and 1, where it is integer, got -1"),
        (np.where(LABELS, 1e39, 0.0), r"y must be finite in float32"),
        (np.ones((N, 0)), r"y must be of at least one number an example, got \(12, 0\)"),
        (LABELS.astype("m8[s]"), r"y must be of numbers, got timedelta64\[s\]"),
        (LABELS * 1j, "y must be of numbers, got complex128"),
    ],
)
def test_targets_that_mean_something_else_are_refused(y, message, tmp_path):
    path = task(tmp_path / "task.npz", y)
    with pytest.raises(ConfigError, match=message) as caught:
        check_data("npz", "mse", {"path": path})
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("npz(task.npz)/mlp: ")
    with pytest.raises(ValueError, match=message):
        build_workload("npz", "mse", path=path)


def test_a_class_that_only_the_test_set_has_is_no_gap(tmp_path):
    rng = np.random.default_rng(0)
    more = {"x_test": rng.normal(size=(2, 4)), "y_test": np.array([3, 3])}
    path = task(tmp_path / "task.npz", LABELS, **more)
    problem = build_workload("npz", path=path).problem
    assert problem.outputs(build_workload("npz", path=path).init(0), problem.probe).shape == (2, 4)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(N, int), "needs at least two classes, y has one"),
        (LABELS * 1.0, "needs targets that are class indices"),
        (np.eye(C)[LABELS] * 2, "needs targets that are class indices"),
    ],
)
def test_cross_entropy_needs_classes(y, message, tmp_path):
    path = task(tmp_path / "task.npz", y)
    check_data("npz", "mse", {"path": path})
    with pytest.raises(ConfigError, match=message):
        check_data("npz", "cross_entropy", {"path": path})
    with pytest.raises(ValueError, match=message):
        build_workload("npz", "cross_entropy", path=path)


@pytest.mark.parametrize(
    "x",
    [
        np.arange(4 * N).reshape(N, 4) - 20,
        np.arange(4 * N).reshape(N, 4) * 2**33,
        np.arange(4 * N).reshape(N, 4).astype(np.uint64) + 2**63,
        np.arange(4 * N).reshape(N, 2, 2) - 20,
    ],
)
def test_integer_inputs_of_a_network_of_numbers_are_those_numbers(x, tmp_path):
    path = task(tmp_path / "task.npz", LABELS, x=x)
    found = build_workload("npz", path=path).problem.data["x"]
    np.testing.assert_array_equal(found, x.astype(np.float64).astype(np.float32))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.arange(4 * N).reshape(N, 4) - 1, "x must be >= 0 where it holds tokens, got -1"),
        (np.full((N, 4), 2**32 + 1), r"x must be <= 2147483647 .* got 4294967297"),
    ],
)
def test_tokens_out_of_range_are_refused(x, message, tmp_path):
    path = task(tmp_path / "task.npz", LABELS[:, None], x=x)
    with pytest.raises(ConfigError, match=message):
        check_data("npz", "mse", {"path": path, "network": "lstm"})


def test_one_predicted_token_stays_a_sequence(tmp_path):
    """(n, 1) are classes for an MLP, and the last token for a sequence network; tokens may skip."""
    x = np.arange(4 * N).reshape(N, 4) % 5
    path = task(tmp_path / "task.npz", 2 * LABELS[:, None], x=x)
    workload = build_workload("npz", path=path, network="lstm", hidden=3, embedding=2)
    assert workload.problem.data["y"].shape == (N, 1)
    assert workload.problem.outputs(workload.init(0), x[:2].astype(np.int32)).shape == (2, 1, 5)


# Criteria ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", [mse, cross_entropy, correct])
@pytest.mark.parametrize(
    ("outputs", "targets", "dtype"),
    [
        ((4, 3), (4, 1), "int32"),
        ((4, 3), (1,), "int32"),
        ((4, 3), (4, 3), "int32"),
        ((4, 3), (), "int32"),
        ((4, 3), (4, 1), "float32"),
        ((4, 3), (3,), "float32"),
        ((4, 1), (4,), "float32"),
        ((4, 1), (4, 1, 1), "float32"),
        ((4, 2, 3), (4, 3), "float32"),
        ((4, 2, 3), (4,), "int32"),
    ],
)
def test_criteria_refuse_to_broadcast(criterion, outputs, targets, dtype):
    shapes = jax.ShapeDtypeStruct(outputs, "float32"), jax.ShapeDtypeStruct(targets, dtype)
    with pytest.raises(ValueError, match=r"targets must be .* got \w+ \(.*\)"):
        jax.eval_shape(criterion, *shapes)


def test_criteria_take_matching_shapes_of_any_rank():
    outputs = jnp.zeros((4, 2, 3))
    for targets in (jnp.zeros((4, 2), int), jnp.zeros((4, 2, 3))):
        for criterion in (mse, cross_entropy, correct):
            assert criterion(outputs, targets).shape == (4, 2)


# Data from outside -------------------------------------------------------------------------------


def outside(monkeypatch, network="mlp", **changes):
    """Register a data set of one's own, as it should be but for `changes`."""
    x = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
    values = {"x": x, "y": LABELS, "x_test": None, "y_test": None, "num_outputs": C, **changes}
    monkeypatch.setattr(WORKLOADS, "_added", {})
    source = DataSource("mine", DigitsOptions, lambda _: DataSet(**values))
    WORKLOADS.register("mine", Supervised("data of one's own", source, network))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": LABELS + 1}, r"y must be classes below num_outputs = 3, got 3"),
        ({"y": LABELS - 1}, r"y must be >= 0 where it is integer, got -1"),
        ({"y": np.ones((N, 2), np.float32)}, r"y must be of num_outputs = 3 numbers.* \(12, 2\)"),
        ({"y": LABELS[:-1]}, r"x and y must be of one length, got \(12, 4\) and \(11,\)"),
        ({"x_test": np.ones((2, 4)), "y_test": np.array([0, 5])}, "y_test must be classes below"),
        ({"x_test": np.ones((2, 5)), "y_test": np.array([0, 1])}, "x_test must be like x"),
        ({"x": np.ones((N, 0))}, r"'mlp' needs x of shape \(n, \.\.\.\)"),
    ],
)
def test_data_sets_of_ones_own_are_held_to_the_same(changes, message, monkeypatch):
    outside(monkeypatch, **changes)
    with pytest.raises(ConfigError, match=message):
        check_data("mine")
    with pytest.raises(ValueError, match=message):
        build_workload("mine")


def test_tokens_beyond_the_vocabulary_are_refused(monkeypatch):
    """A table of embeddings would be read at its last row, without a word."""
    tokens = np.arange(4 * N).reshape(N, 4) % 6
    outside(monkeypatch, "lstm", x=tokens, y=tokens[:, :2] % C, vocab_size=6)
    check_data("mine")
    outside(monkeypatch, "lstm", x=tokens, y=tokens[:, :2] % C, vocab_size=5)
    with pytest.raises(ConfigError, match="x must be tokens below 5, got 5"):
        check_data("mine")


def test_data_of_any_byte_order_and_width_are_taken(monkeypatch):
    outside(monkeypatch)
    usual = data_fingerprint("mine")
    x = build_workload("mine").problem.data["x"]
    outside(monkeypatch, x=x.astype(">f8"), y=LABELS.astype(">i2"))
    data = build_workload("mine").problem.data
    assert (data["x"].dtype, data["y"].dtype) == (np.float32, np.int32)
    assert data_fingerprint("mine") == usual
    outside(monkeypatch, num_outputs=C + 1)  # another network, on the same arrays
    assert data_fingerprint("mine") != usual


@dataclass(frozen=True)
class NoOptions:
    """None."""


def test_a_network_with_another_number_of_outputs_is_refused(monkeypatch):
    """Labels that a network has no output for would count as a target of zeros."""

    def build(*_):
        return Network(apply=lambda w, x: x[:, :2] * w, init=lambda seed: jnp.float32(1 + seed))

    outside(monkeypatch)
    source = WORKLOADS["mine"].source
    kind = NetworkKind("two", NoOptions, build, lambda *_: None)
    WORKLOADS.register("mine", Supervised("two outputs", source, kind))
    problem = build_workload("mine").problem
    with pytest.raises(ValueError, match="network must have 3 outputs, got 2"):
        jax.eval_shape(problem.loss, jnp.float32(1), problem.data)


# The driver --------------------------------------------------------------------------------------


def test_the_driver_looks_at_data_without_jax(tmp_path):
    good = task(tmp_path / "good.npz", LABELS)
    bad = task(tmp_path / "bad.npz", LABELS[:, None, None])
    code = (
        "import sys\n"
        "from cflows_ray.workloads import check_data\n"
        f"check_data('npz', 'mse', {{'path': {good!r}}})\n"
        "for name in ('digits_mlp', 'lstm_sorting', 'saddle_2d'):\n"
        "    check_data(name, 'cross_entropy')\n"
        "try:\n"
        f"    check_data('npz', 'mse', {{'path': {bad!r}}})\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "assert 'jax' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("npz(bad.npz)/mlp: y must be classes (n,)")


def test_data_that_are_not_there(tmp_path):
    with pytest.raises(DataUnavailable, match="there is none at"):
        check_data("npz", "mse", {"path": str(tmp_path / "none.npz")})
