"""Ghost batches need less memory: XLA's own account of the compiled derivatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.flatten_util import ravel_pytree

from cflows_ray.curvature import linearize_gradient, third_derivative, value_and_grad
from cflows_ray.workloads import build_workload

DERIVATIVES = {
    "gradient": lambda loss, w: value_and_grad(loss, w),
    # one linearization, several products: what the eigensolver does
    "products": lambda loss, w: linearize_gradient(loss, w).hessian_vectors(jnp.stack([w, w + 1])),
    "third": lambda loss, w: third_derivative(loss, w, w, w),
}


def temporary_bytes(derivative, ghost_batch):
    workload = build_workload("digits_mlp", width=128, ghost_batch=ghost_batch)
    flat, unravel = ravel_pytree(workload.init(0))

    def compute(w, data):
        return derivative(lambda x: workload.problem.loss(unravel(x), data), w)

    compiled = jax.jit(compute).lower(flat, workload.problem.data).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("name", sorted(DERIVATIVES))
def test_slices_of_a_twentieth_need_a_fifth_of_the_memory(name):
    whole = temporary_bytes(DERIVATIVES[name], 0)
    sliced = temporary_bytes(DERIVATIVES[name], 50)
    assert sliced < whole / 5, f"{sliced} bytes with slices, {whole} without"
