"""Data of one's own: what is read, and what is said about files that are wrong."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from tiny import write_npz

from cflows_ray.workloads import build_workload


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
        (
            {"x": np.ones((3, 2)), "y": np.zeros(4, int)},
            r"x and y must be of one length, got \(3, 2\) and \(4,\)",
        ),
        ({"x": np.ones(3), "y": np.zeros(3)}, r"x must be \(n, ...\) with n >= 1, got \(3,\)"),
        ({"x": np.ones((3, 2)), "y": 1.0}, r"y must be \(n, ...\) with n >= 1, got \(\)"),
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


# Files that are no archive of plain arrays: no advice to unpickle --------------------------------


def text(path):
    path.write_text("x,y\n1,2\n")


def empty(path):
    path.write_bytes(b"")


def single_array(path):
    with path.open("wb") as file:
        np.save(file, np.ones(3))


def objects(path):
    np.savez(path, x=np.ones((3, 2)), y=np.array([{}, [], 0], object))


def pickled(path):
    path.write_bytes(b"\x80\x04K\x01.")


def truncated(path):
    np.savez(path, x=np.ones((30, 2)), y=np.zeros(30, int))
    path.write_bytes(path.read_bytes()[:300])


def damaged(path):
    np.savez_compressed(path, x=np.arange(600.0).reshape(300, 2), y=np.zeros(300, int))
    raw = bytearray(path.read_bytes())
    raw[100:110] = bytes(10)
    path.write_bytes(bytes(raw))


def other_zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", "no array")
        file.writestr("y.npy", "no array")


@pytest.mark.parametrize(
    "write", [text, empty, single_array, objects, pickled, truncated, damaged, other_zip]
)
def test_one_line_without_advice_to_unpickle(write, tmp_path):
    path = tmp_path / "task.npz"
    write(path)
    with pytest.raises(ValueError, match="is not a file of plain arrays: ") as caught:
        build_workload("npz", path=str(path))
    assert "\n" not in str(caught.value)
    assert "pickle" not in str(caught.value)
