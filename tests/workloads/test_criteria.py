"""Criteria by hand."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from cflows_ray.workloads.criteria import correct, cross_entropy, mse


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
