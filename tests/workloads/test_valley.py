"""The valleys: their formulas, and the curvature and slope that their theory starts from."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from cflows_ray.checks import ConfigError
from cflows_ray.workloads import build_workload, check_workload
from tests.oracles_rivals_others import valley_2d, valley_3d


@pytest.mark.parametrize(
    ("name", "options", "oracle"),
    [("valley_2d", {"zeta": 0.3, "eps": 0.01}, valley_2d(0.3, 0.01)),
     ("valley_3d", {"eps": 0.01}, valley_3d(0.01))],
)  # fmt: skip
def test_valleys_are_their_formulas(name, options, oracle):
    workload = build_workload(name, **options)
    start, back = ravel_pytree(workload.init(0))
    loss = lambda w: workload.problem.loss(back(w), workload.problem.data)  # noqa: E731
    point = start + np.linspace(0.1, 0.3, start.size)
    for ours, theirs in ((loss, oracle), (jax.grad(loss), jax.grad(oracle))):
        np.testing.assert_allclose(ours(point), theirs(point), rtol=1e-5)
    assert workload.init(1)["x"] != workload.init(0)["x"]


def test_what_valleys_refuse():
    with pytest.raises(ConfigError, match="eps must be >= 0, got -1"):
        check_workload("valley_2d", options={"eps": -1.0})
    with pytest.raises(ConfigError, match="not \\(0, 0\\)"):
        check_workload("valley_3d", options={"y0": 0.0, "y1": 0.0})
