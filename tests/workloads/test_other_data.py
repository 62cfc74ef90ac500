"""Digits, sorting, data of one's own, and the analytic workload."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import write_npz

from cflows_ray.workloads import build_workload
from cflows_ray.workloads.criteria import correct, cross_entropy, mse


def test_digits_split_is_fixed_and_disjoint():
    problem = build_workload("digits_mlp").problem
    assert problem.data["x"].shape == (1000, 8, 8, 1)
    assert problem.test_data["x"].shape == (797, 8, 8, 1)
    assert problem.probe.shape == (64, 8, 8, 1)
    assert problem.data["x"].mean() == pytest.approx(0, abs=1e-4)
    assert problem.data["x"].std() == pytest.approx(1, abs=1e-4)
    train = {image.tobytes() for image in problem.data["x"]}
    test = [image.tobytes() for image in problem.test_data["x"]]
    assert sum(image in train for image in test) <= 5  # the set itself has a few twins
    fewer = build_workload("digits_mlp", num_examples=100).problem.data
    np.testing.assert_array_equal(fewer["y"], problem.data["y"][:100])


def test_digits_start_from_outputs_of_zero():
    workload = build_workload("digits_mlp", "cross_entropy")
    loss = workload.problem.loss(workload.init(0), workload.problem.data)
    assert float(loss) == pytest.approx(np.log(10), rel=1e-6)
    workload = build_workload("digits_mlp", "mse")
    assert float(workload.problem.loss(workload.init(0), workload.problem.data)) == 0.5


def test_sorting_asks_for_the_sorted_part():
    data = build_workload("lstm_sorting", length=5, vocab_size=3, num_examples=50).problem.data
    x, y = data["x"], data["y"]
    assert x.shape == (50, 9)
    np.testing.assert_array_equal(y, np.sort(x[:, :5], axis=1))
    np.testing.assert_array_equal(x[:, 5:], y[:, :-1])  # shifted by one
    assert x.max() == 2


@pytest.mark.parametrize("name", ["lstm_sorting", "transformer_sorting", "mamba_sorting"])
def test_sequence_networks_are_causal(name, tiny):
    """A later token changes no earlier output."""
    workload = tiny(name)
    params = workload.init(0)
    params["head"]["kernel"] = params["head"]["kernel"] + 0.5 * jnp.eye(
        *params["head"]["kernel"].shape
    )
    tokens = workload.problem.data["x"][:1]
    changed = tokens.copy()
    changed[0, -1] = (changed[0, -1] + 1) % 4
    outputs = jax.jit(workload.problem.outputs)
    before, after = (np.asarray(outputs(params, t)) for t in (tokens, changed))
    np.testing.assert_allclose(before[:, :-1], after[:, :-1], atol=1e-6)
    assert np.abs(before[:, -1] - after[:, -1]).max() > 1e-6


def test_npz_is_read_as_it_is(tmp_path):
    path = write_npz(tmp_path / "task.npz")
    workload = build_workload("npz", path=str(path), width=4)
    arrays = np.load(path)
    np.testing.assert_array_equal(workload.problem.data["x"], arrays["x"].astype(np.float32))
    np.testing.assert_array_equal(workload.problem.test_data["y"], arrays["y_test"])
    assert workload.problem.outputs(workload.init(0), workload.problem.probe).shape == (4, 3)


def test_npz_rewritten_is_read_anew(tmp_path):
    path = write_npz(tmp_path / "task.npz")
    first = build_workload("npz", path=str(path))
    assert build_workload("npz", path=str(path)) is first
    arrays = dict(np.load(path))
    np.savez(path, x=arrays["x"] + 1, y=arrays["y"])
    again = build_workload("npz", path=str(path))
    assert again is not first
    assert again.problem.test_data is None
    assert again.problem.probe.shape == (11, 6)


def test_npz_tokens_and_regression(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "tokens.npz"
    np.savez(path, x=rng.integers(0, 5, (6, 4)), y=rng.integers(0, 3, (6, 2)))
    workload = build_workload("npz", path=str(path), network="lstm", hidden=3, embedding=2)
    assert workload.init(0)["embed"]["table"].shape == (5, 2)
    assert workload.problem.outputs(workload.init(0), workload.problem.probe).shape == (6, 2, 3)
    path = tmp_path / "regression.npz"
    np.savez(path, x=rng.normal(size=(6, 4)), y=rng.normal(size=6))
    workload = build_workload("npz", path=str(path))
    assert workload.problem.data["y"].shape == (6, 1)
    assert workload.problem.accuracy is None
    with pytest.raises(ValueError, match="criterion 'cross_entropy'"):
        build_workload("npz", "cross_entropy", path=str(path))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((3, 2))}, "no array 'y'"),
        ({"x": np.ones((3, 2)), "y": np.zeros(4, int)}, r"got \(3, 2\) and \(4,\)"),
        ({"x": np.full((3, 2), np.nan), "y": np.zeros(3, int)}, "x must be finite"),
        ({"x": np.ones((3, 2)), "y": np.array([0, -1, 1])}, "y must be >= 0"),
        ({"x": np.ones((3, 2)), "y": np.array(["a", "b", "c"])}, "y must be of numbers"),
        ({"x": np.ones((3, 2)), "y": np.zeros(3, object)}, "not a file of plain arrays"),
        ({"x": np.ones((3, 2)), "y": np.zeros(3, int), "x_test": np.ones((3, 2))}, "only one of"),
        (
            {
                "x": np.ones((3, 2)),
                "y": np.zeros(3, int),
                "x_test": np.ones((3, 4)),
                "y_test": np.zeros(3, int),
            },
            "x_test must be like x",
        ),
    ],
)
def test_npz_mistakes_are_named(arrays, message, tmp_path):
    path = tmp_path / "wrong.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message):
        build_workload("npz", path=str(path))


def test_npz_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        build_workload("npz", path=str(tmp_path / "none.npz"))
    path = tmp_path / "text.npz"
    path.write_text("not an archive")
    with pytest.raises(ValueError, match="not a file of plain arrays"):
        build_workload("npz", path=str(path))


def test_network_on_data_of_another_kind(tmp_path):
    path = write_npz(tmp_path / "task.npz")
    with pytest.raises(ValueError, match=r"'cnn' needs x of shape \(n, side, side, channels\)"):
        build_workload("npz", path=str(path), network="cnn")
    with pytest.raises(ValueError, match="'lstm' needs integer x"):
        build_workload("npz", path=str(path), network="lstm")


def test_saddle_is_its_formula():
    workload = build_workload("saddle_2d", c=0.5, x0=2.0, y0=3.0)
    assert float(workload.problem.loss(workload.init(0), workload.problem.data)) == 4.5
    assert float(workload.init(1)["x"]) != 2.0


def test_criteria_by_hand():
    outputs, labels = jnp.array([[1.0, 3.0], [0.0, 0.0]]), jnp.array([0, 1])
    np.testing.assert_allclose(mse(outputs, labels), [(0 + 9) / 2, 0.5])
    np.testing.assert_allclose(
        cross_entropy(outputs, labels), [np.log(1 + np.e**2), np.log(2)], rtol=1e-6
    )
    one_hot = jnp.eye(2)
    np.testing.assert_allclose(mse(outputs, one_hot), mse(outputs, labels))
    np.testing.assert_allclose(cross_entropy(outputs, one_hot), cross_entropy(outputs, labels))
    assert correct(outputs, labels).tolist() == [False, False]
    assert correct(outputs, one_hot).tolist() == [False, False]


def test_binary_criteria_by_hand():
    outputs, targets = jnp.array([[2.0], [3.0]]), jnp.array([[-1.0], [1.0]])
    np.testing.assert_allclose(mse(outputs, targets), [4.5, 2.0])
    expected = [np.log(1 + np.e**2), np.log(1 + np.e**-3)]
    np.testing.assert_allclose(cross_entropy(outputs, targets), expected, rtol=1e-6)
    assert correct(outputs, targets).tolist() == [False, True]
