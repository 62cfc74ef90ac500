"""The two-parameter workload with an analytic central flow.

    L(x, y) = ½ y x² - c y

Gradient descent with learning rate η raises y at rate c until the curvature y along x reaches
2/η; then x oscillates with variance Σ = 2c, which holds y in place, and the loss exceeds the flow's
by 2c/η on average.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from cflows_ray.checks import require
from cflows_ray.lazy import LazyModule
from cflows_ray.workloads.base import Recipe, Workload
from cflows_ray.workloads.options import check_numbers

if TYPE_CHECKING:
    import jax.numpy as jnp
    from jaxtyping import Array
else:
    jnp = LazyModule("jax.numpy")


@dataclass(frozen=True)
class SaddleOptions:
    """L(x, y) = ½ y x² - c y, started at (x0, y0)."""

    c: float = 0.01
    x0: float = 0.15
    y0: float = 9.8

    def __post_init__(self) -> None:
        check_numbers(self, "c", "x0", "y0")
        require(self.c >= 0, "c", ">= 0", self.c)
        require(self.y0 > 0, "y0", "> 0", self.y0)


class Saddle(Recipe):
    """Parameters `{"x": (), "y": ()}`, started at (x0, y0), and no data.

    Seed 0 starts exactly there; other seeds multiply x0 by a factor drawn from [0.5, 1.5]. The
    criterion is recorded and changes nothing.

    Example:
        >>> from cflows_ray.workloads import build_workload
        >>> workload = build_workload("saddle_2d", c=0.5, x0=2.0, y0=3.0)
        >>> float(workload.problem.loss(workload.init(0), workload.problem.data))
        4.5
    """

    summary = "two parameters with an analytic central flow"
    option_classes = (SaddleOptions,)

    def build(self, name: str, criterion: str, *options: Any) -> Workload:
        """Build the workload."""
        from cflows_ray.problem import Problem

        (at,) = options

        def loss(params: dict[str, Array], data: tuple[()]) -> Float[Array, ""]:
            del data
            x, y = params["x"], params["y"]
            return 0.5 * y * x**2 - at.c * y

        def init(seed: int) -> dict[str, Array]:
            factor = np.random.default_rng(seed).uniform(0.5, 1.5) if seed else 1.0
            return {"x": jnp.float32(at.x0 * factor), "y": jnp.float32(at.y0)}

        return Workload(name=name, criterion=criterion, problem=Problem(loss=loss), init=init)


SADDLE = Saddle()
