"""The contract of every registered workload: derivatives, dtypes, determinism, ghost batches.

A new entry of the registry inherits these tests; it only needs a tiny version in `tiny.py`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from tiny import TINY

from cflows_ray.paired.smoothness import suspects
from cflows_ray.paired.tracing import trace
from cflows_ray.problem import ParamStructure, cast_floats
from cflows_ray.workloads import CRITERIA, WORKLOADS

NAMES = sorted(WORKLOADS)
NETWORKS = [name for name in NAMES if name not in ("saddle_2d", "valley_2d", "valley_3d")]
RELATIVE = 1e-5
# central differences of fourth order: (f(-2h) - 8 f(-h) + 8 f(h) - f(2h)) / 12h
STENCIL = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))
STEP = 2e-3
# these programs run a few times on a dozen examples: compiling them is the cost
QUICK = {"xla_backend_optimization_level": 0}


def random_params(workload, seed=0, dtype="float64"):
    """Move initial parameters off their zeros, where many derivatives vanish."""
    flat, unravel = ravel_pytree(workload.init(seed))
    noise = 0.3 * np.random.default_rng(seed).standard_normal(flat.shape)
    moved = jax.tree.map(lambda a: np.asarray(a, dtype), unravel(flat + jnp.float32(noise)))
    return moved


def flat_loss(problem, params):
    """Return the loss of a flat vector, and the vector."""
    flat, unravel = ravel_pytree(jax.tree.map(jnp.asarray, params))
    return (lambda w, data: problem.loss(unravel(w), data)), flat


def derivatives(loss):
    """Jitted (w, u, v, data) -> value, gradient, Hv and ∇³L[u, v]."""

    def hvp(w, v, data):
        return jax.jvp(lambda x: jax.grad(loss)(x, data), (w,), (v,))[1]

    def compute(w, u, v, data):
        value, grad = jax.value_and_grad(loss)(w, data)
        hv, third = jax.jvp(lambda x: hvp(x, v, data), (w,), (u,))
        return value, grad, hv, third

    return jax.jit(compute, compiler_options=QUICK)


def relative_error(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("name", NAMES)
def test_a_loss_holds_nothing_that_may_not_be_smooth(name, criterion, tiny):
    workload = tiny(name, criterion)
    data = cast_floats(workload.problem.data, "float32")
    structure = ParamStructure.of(workload.init(0), "float32")
    traced, _ = trace(workload.problem.loss, "loss", structure, data)
    assert suspects(traced.jaxpr, len(structure.shapes)) == ""


def test_every_workload_has_a_tiny_version():
    assert sorted(TINY) == NAMES


@pytest.mark.parametrize(
    ("name", "criterion"), [("digits_mlp", "mse"), *((name, "cross_entropy") for name in NAMES)]
)
def test_derivatives_agree_with_central_differences(name, criterion, tiny):
    workload = tiny(name, criterion)
    with jax.enable_x64(True):
        loss, w = flat_loss(workload.problem, random_params(workload))
        rng = np.random.default_rng(1)
        u, v = (jnp.asarray(a / np.linalg.norm(a)) for a in rng.standard_normal((2, *w.shape)))
        compute = derivatives(loss)
        _, grad, _, third = compute(w, u, v, workload.problem.data)
        around = [
            (c / STEP, compute(w + k * STEP * u, u, v, workload.problem.data)) for k, c in STENCIL
        ]
        slopes = [sum(c * np.asarray(values[i]) for c, values in around) for i in range(3)]
        hu = compute(w, v, u, workload.problem.data)[2]
        slope = float(grad @ u)

    assert grad.dtype == jnp.float64
    assert slope == pytest.approx(float(slopes[0]), rel=RELATIVE)
    assert relative_error(hu, slopes[1]) < RELATIVE
    assert relative_error(third, slopes[2]) < RELATIVE
    _, unravel = ravel_pytree(workload.init(0))
    for path, leaf in jax.tree_util.tree_leaves_with_path(unravel(jnp.float32(grad))):
        assert np.any(leaf != 0), f"the loss does not depend on {jax.tree_util.keystr(path)}"


@pytest.mark.parametrize("name", NAMES)
def test_initial_parameters_are_deterministic_float32(name, tiny):
    workload = tiny(name)
    first, again, other = workload.init(3), workload.init(3), workload.init(4)
    with jax.enable_x64(True):
        in_x64 = workload.init(3)
    for a, b, c in zip(*map(jax.tree.leaves, (first, again, in_x64)), strict=True):
        assert a.dtype == jnp.float32
        assert c.dtype == jnp.float32
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True)
    assert any(not np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", NETWORKS)
def test_float32_parameters_stay_in_float32(name, tiny):
    """Even with 64-bit mode on: nothing inside makes an array of the default float type."""
    problem = tiny(name, "cross_entropy").problem
    params = tiny(name, "cross_entropy").init(0)
    with jax.enable_x64(True):
        jaxpr = jax.make_jaxpr(jax.grad(problem.loss))(params, problem.data)
        outputs = jax.eval_shape(problem.outputs, params, problem.probe)
        accuracy = jax.eval_shape(problem.accuracy, params, problem.test_data)
    assert {a.dtype for a in jaxpr.out_avals} == {jnp.dtype("float32")}
    assert "f64" not in str(jaxpr)
    assert outputs.dtype == accuracy.dtype == jnp.float32


@pytest.mark.parametrize("name", NETWORKS)
def test_data_are_numpy_arrays_of_plain_types(name, tiny):
    problem = tiny(name).problem
    for data in (problem.data, problem.test_data):
        for array in data.values():
            assert isinstance(array, np.ndarray)
            assert array.dtype in (np.float32, np.int32)
        assert len(data["x"]) == len(data["y"])


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_accuracy_are_consistent(name, tiny):
    workload = tiny(name)
    problem, params = workload.problem, workload.init(0)
    data = problem.data
    outputs = np.asarray(problem.outputs(params, data["x"]))
    right = outputs.argmax(axis=-1) == data["y"]
    assert float(problem.accuracy(params, data)) == pytest.approx(right.mean())
    target = np.eye(outputs.shape[-1])[data["y"]]
    half = 0.5 * ((outputs - target) ** 2).sum(axis=-1).mean()
    assert float(problem.loss(params, data)) == pytest.approx(half, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "ghost_batch"),
    [
        ("digits_mlp", 4),
        ("digits_mlp", 5),
        ("resnet_cifar10", 5),
        ("vit_cifar10", 3),
        ("mamba_sorting", 2),
    ],
)
def test_ghost_batches_change_nothing_but_rounding(name, ghost_batch, tiny):
    """Sizes that divide the batch and that leave a ragged last slice, in float64."""
    whole = tiny(name, "cross_entropy")
    sliced = tiny(name, "cross_entropy", ghost_batch=ghost_batch)
    with jax.enable_x64(True):
        params = random_params(whole)
        results = []
        for problem in (whole.problem, sliced.problem):
            loss, w = flat_loss(problem, params)
            rng = np.random.default_rng(1)
            u, v = jnp.asarray(rng.standard_normal((2, *w.shape)))
            results.append(derivatives(loss)(w, u, v, problem.data))
            accuracy = problem.accuracy(params, problem.data)
            results[-1] += (accuracy,)
    for a, b in zip(*results, strict=True):
        assert relative_error(b, a) < 1e-11
