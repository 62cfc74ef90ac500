"""The two-parameter workload with an analytic central flow.

    L(x, y) = ½ y x² - c y

Gradient descent with learning rate η raises y at rate c until the curvature y along x reaches
2/η; then x oscillates with variance Σ = 2c, which holds y in place, and the loss exceeds the flow's
by 2c/η on average.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cflows_ray.problem import Problem
from cflows_ray.workloads.base import Workload
from cflows_ray.workloads.options import SaddleOptions


def build(name: str, criterion: str, options: SaddleOptions) -> Workload:
    """Build the workload; the criterion is recorded and changes nothing.

    Parameters are `{"x": (), "y": ()}`, started at (x0, y0). Seed 0 starts exactly there; other
    seeds multiply x0 by a factor drawn from [0.5, 1.5].

    Example:
        >>> from cflows_ray.workloads import build_workload
        >>> workload = build_workload("saddle_2d", c=0.5, x0=2.0, y0=3.0)
        >>> float(workload.problem.loss(workload.init(0), workload.problem.data))
        4.5
    """

    def loss(params: dict[str, Array], data: tuple[()]) -> Float[Array, ""]:
        del data
        x, y = params["x"], params["y"]
        return 0.5 * y * x**2 - options.c * y

    def init(seed: int) -> dict[str, Array]:
        factor = np.random.default_rng(seed).uniform(0.5, 1.5) if seed else 1.0
        return {"x": jnp.float32(options.x0 * factor), "y": jnp.float32(options.y0)}

    return Workload(name=name, criterion=criterion, problem=Problem(loss=loss), init=init)
