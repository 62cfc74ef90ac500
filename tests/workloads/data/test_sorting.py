"""Sorting: what is asked, and that later tokens change no earlier output."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray.workloads import build_workload


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
