"""Handwritten digits: the split, and where training starts."""

from __future__ import annotations

import numpy as np
import pytest

from cflows_ray.workloads import build_workload


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
