"""The examples in the docstrings are run."""

import doctest
import importlib

import pytest

MODULES = [
    "cflows_ray.store.checkpoint",
    "cflows_ray.sweep.config",
    "cflows_ray.curvature",
    "cflows_ray.linalg.eigen",
    "cflows_ray.linalg.sdcp",
    "cflows_ray.linalg.symmetric",
    "cflows_ray.paired.run",
    "cflows_ray.sweep.placement",
    "cflows_ray.problem",
    "cflows_ray.store.tables",
    "cflows_ray.rules.gradient_descent",
    "cflows_ray.rules.rmsprop",
    "cflows_ray.rules.scalar_rmsprop",
    "cflows_ray.schedules",
    "cflows_ray.store.storage",
]


@pytest.mark.parametrize("module", MODULES)
def test_examples(module):
    failed, attempted = doctest.testmod(importlib.import_module(module))
    assert attempted > 0
    assert failed == 0
