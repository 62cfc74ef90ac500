"""Table `stable`: error of the stable flow's schemes against the gradients that they take.

The flow alone, from the initial parameters, in float64; its effective sharpness is that of the
dense Hessian, so that nothing but the scheme differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from cflows_ray import Adam, GradientDescent, PairedOptions, RMSProp
from cflows_ray.flows import FlowContext
from cflows_ray.flows.integrators import Place
from cflows_ray.flows.stable import follow
from cflows_ray.flows.trust import Passed
from cflows_ray.rules import traced
from tests.benchmarks.measuring import table
from tests.benchmarks.table_precision import Case
from tests.networks import NETWORKS

CASES = (
    Case("tanh_regression", GradientDescent(0.8), 300),
    Case("deep_linear", RMSProp(0.01, beta2=0.95), 300),
    Case("attention", GradientDescent(1.0), 300),
    Case("tanh_regression", Adam(0.01, beta2=0.99), 300),
)
TINY = (Case("tanh_regression", GradientDescent(0.8), 5),)
SCHEMES = (("euler", 4), ("euler", 16), ("chebyshev", 4), ("chebyshev", 8), ("chebyshev", 16))
REFERENCE = ("chebyshev", 64)


class StablePath(NamedTuple):
    """Where the flow was, step by step, and what it says of itself there; while it went on."""

    params: np.ndarray
    sharpness: np.ndarray
    error: np.ndarray
    gradients: np.ndarray


def integrate(case: Case, scheme: tuple[str, int]) -> StablePath:
    """Follow the stable flow by a scheme with so many substeps."""
    options = PairedOptions(stable_scheme=scheme[0], substeps=scheme[1], dtype="float64")
    loss, params = NETWORKS[case.network]()
    with jax.enable_x64(True):
        rows = _integrate(loss, options, case.steps, traced(case.rule, "float64"), params)
    *path, went_on = (np.asarray(column) for column in rows)
    return StablePath(*(column[went_on] for column in path))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _integrate(loss: Any, options: PairedOptions, steps: int, rule: Any, params: Array) -> tuple:
    context, one = FlowContext(loss, rule, options, 1), jnp.ones((), params.dtype)
    state = rule.absorb(one, rule.init(params), jax.grad(loss)(params))

    def step(carry: tuple, _: None) -> tuple:
        here, passed, spent, goes_on = carry
        metric = rule.edge_preconditioner(here.t, here.state)
        root = jnp.sqrt(jnp.broadcast_to(metric, params.shape))
        hessian = jax.hessian(loss)(here.params) / root / root[:, None]
        sharpness = jnp.linalg.eigvalsh(hessian)[-1]
        goes_on &= sharpness <= options.sharpness_limit
        grad = jax.grad(loss)(here.params)
        moved, taken = follow(context, here, grad, passed, sharpness, goes_on)
        row = here.params, sharpness, moved.error_here, spent, goes_on
        place = moved.place._replace(t=here.t + 1.0)
        return (place, moved.passed, spent + taken, goes_on), row

    begin = Place(params, state, one), Passed.begin(params, state)
    carry = (*begin, jnp.zeros((), jnp.int32), jnp.ones((), bool))
    return jax.lax.scan(step, carry, length=steps + 1)[1]


def stable(tiny: bool = False) -> Iterator[str]:
    """Yield a table for each network."""
    yield (
        f"Reference: scheme {REFERENCE[0]} with substeps={REFERENCE[1]}. Error: largest distance "
        "to the reference on the way, and that at the last step that all have, over the way that "
        "the reference travelled to there; estimate: the flow's own `flow_error` there. Gradients: "
        "up to the end, or to where the effective sharpness passes 100. With momentum the scheme "
        "chebyshev is leapfrog."
    )
    for case in TINY if tiny else CASES:
        yield from _table(case, SCHEMES[:3] if tiny else SCHEMES)


def _table(case: Case, schemes: tuple[tuple[str, int], ...]) -> Iterator[str]:
    truth = integrate(case, REFERENCE)
    paths = {scheme: integrate(case, scheme) for scheme in schemes}
    last = min(len(path.params) for path in (truth, *paths.values())) - 1
    travelled = np.linalg.norm(truth.params[last] - truth.params[0])
    yield (
        f"{case.network}, {type(case.rule).__name__} at {case.rule.lr:g}, {case.steps} steps; "
        f"effective sharpness {truth.sharpness[0]:.2g}, at most {truth.sharpness.max():.3g}; "
        f"errors up to step {last}."
    )
    rows = []
    for (name, substeps), path in paths.items():
        off = np.linalg.norm(path.params[: last + 1] - truth.params[: last + 1], axis=1) / travelled
        words = (f"{x:.1e}" for x in (off.max(), off[last], path.error[last] / travelled))
        rows.append((f"{name} {substeps}", *words, int(path.gradients[-1]), len(path.params) - 1))
    header = "scheme and substeps | largest error | error at the end | estimate | gradients | steps"
    yield table(header, rows)
