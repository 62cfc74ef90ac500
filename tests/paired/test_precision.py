"""What a loss computes in decides what its derivatives are worth, not what the run is in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray import GradientDescent, run_paired
from cflows_ray.paired.precision import computing_dtype
from tests.networks import NETWORKS

W, X = np.ones(3, np.float32), np.ones((4, 3), np.float32)


def inside(dtype):
    """Return a loss that multiplies in a type, and hands its result out in that of w."""
    return lambda w, x: jnp.mean(jnp.tanh(x.astype(dtype) @ w.astype(dtype))).astype(w.dtype)


def in_loop(w, x):
    def add(total, row):
        return total + (row.astype(jnp.float16) @ w.astype(jnp.float16)).astype(w.dtype), None

    return jax.lax.scan(add, jnp.zeros((), w.dtype), x)[0]


def with_coarse_mask(w, x):
    mask = (x > 0).astype(jnp.bfloat16)
    return jnp.mean(mask.astype(w.dtype) * (x * w))


def with_coarse_aside(w, x):
    jnp.sum(w.astype(jnp.bfloat16))  # nothing comes of it
    return jnp.sum(x @ w)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (inside(jnp.float32), "float32"),
        (inside(jnp.bfloat16), "bfloat16"),
        (inside(jnp.float16), "float16"),
        (jax.jit(inside(jnp.bfloat16)), "bfloat16"),
        (jax.checkpoint(inside(jnp.float16)), "float16"),
        (in_loop, "float16"),
        (with_coarse_mask, "float32"),
        (with_coarse_aside, "float32"),
    ],
)
def test_the_coarsest_type_on_the_way_to_the_loss(loss, expected):
    assert computing_dtype(jax.make_jaxpr(loss)(W, X).jaxpr, 1) == expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("half", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_refused_before_anything_is_compiled(half, dtype):
    message = f"loss_fn must compute in float32 or float64, got {jnp.dtype(half).name} inside"
    with pytest.raises(ValueError, match=message):
        run_paired(inside(half), W, GradientDescent(0.1), data=X, steps=2, dtype=dtype)


def test_a_float32_network_in_a_float64_run_is_asked_for_what_it_can_give():
    network, params = NETWORKS["tanh_regression"]()

    def loss(w):
        return network(w.astype(jnp.float32)).astype(w.dtype)

    counts = {}
    for dtype, run_in in (("float32", "float64"), ("float32", "float32")):
        result = run_paired(
            loss, params, GradientDescent(0.8), steps=40, warmup=5, flows=("central",), dtype=run_in
        )
        central = result.steps[result.steps.process == "central"]
        assert central.status.eq("ok").all()
        counts[run_in] = central.num_hvps.iloc[-1]
        said = f"loss computed in {dtype} in a float64 run: eigenpairs to 0.001"
        assert (said in (result.status_detail or "")) == (run_in == "float64")
    assert counts["float64"] <= 1.2 * counts["float32"]
