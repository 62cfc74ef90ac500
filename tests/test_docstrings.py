"""The examples in the docstrings are run."""

import doctest
import importlib

import pytest

MODULES = [
    "cflows_ray.curvature",
    "cflows_ray.linalg.eigen",
    "cflows_ray.linalg.sdcp",
    "cflows_ray.linalg.symmetric",
    "cflows_ray.pairing",
    "cflows_ray.problem",
    "cflows_ray.rules.gradient_descent",
    "cflows_ray.rules.rmsprop",
    "cflows_ray.rules.scalar_rmsprop",
    "cflows_ray.rules.schedules",
]


@pytest.mark.parametrize("module", MODULES)
def test_examples(module):
    failed, attempted = doctest.testmod(importlib.import_module(module))
    assert attempted > 0
    assert failed == 0
