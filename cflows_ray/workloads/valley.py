"""Two valleys whose curvature rises along the floor: where loops at the edge can be followed.

    valley_2d    L = ½ (y + ζ x) x² - ε (x + y)
    valley_3d    L = ½ (|y| + 3 e^{x/2}) x² - ε (x + y₁),   y in R²

Berthier, "The Multiple Timescales of Gradient Descent on the Edge of Stability", arXiv 2609.01034.
Gradient descent with learning rate η climbs until the curvature along x reaches 2/η; then x
alternates in loops of about 2π / (η √(2ε)) steps, whose energy drifts: in `valley_2d` at a rate
(2 - 9ζ²) η² ε <y₁²> a step, y = 2/η + √ε y₁ (docs/rivals-theory.md). `saddle_2d` is `valley_2d`
with ζ = 0 and without the -εx.
"""

from __future__ import annotations

from collections.abc import Callable
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
class ValleyOptions:
    """½(y + ζx)x² - ε(x + y), started at (x0, y0).

    With the defaults gradient descent at a learning rate of 0.3 starts on a loop.
    """

    zeta: float = 0.3
    eps: float = 1e-3
    x0: float = 0.02
    y0: float = 6.66

    def __post_init__(self) -> None:
        check_numbers(self, "zeta", "eps", "x0", "y0")
        require(self.eps >= 0, "eps", ">= 0", self.eps)
        require(self.y0 > 0, "y0", "> 0", self.y0)


@dataclass(frozen=True)
class WideValleyOptions:
    """½(|y| + 3e^{x/2})x² - ε(x + y₁), started at (x0, y0, y1)."""

    eps: float = 1e-3
    x0: float = 0.02
    y0: float = 3.6
    y1: float = 0.5

    def __post_init__(self) -> None:
        check_numbers(self, "eps", "x0", "y0", "y1")
        require(self.eps >= 0, "eps", ">= 0", self.eps)
        # |y| has no derivative at 0
        require(self.y0**2 + self.y1**2 > 0, "(y0, y1)", "not (0, 0)", (self.y0, self.y1))


class Valley2D(Recipe):
    """Parameters `{"x": (), "y": ()}`, and no data; the criterion is recorded and changes nothing.

    Seed 0 starts at (x0, y0); other seeds multiply x0 by a factor drawn from [0.5, 1.5].

    Example:
        >>> from cflows_ray.workloads import build_workload
        >>> workload = build_workload("valley_2d", zeta=0.5, eps=0.5, x0=2.0, y0=3.0)
        >>> float(workload.problem.loss(workload.init(0), workload.problem.data))
        5.5
    """

    summary = "two parameters whose loops at the edge have a known drift"
    option_classes = (ValleyOptions,)

    def build(self, name: str, criterion: str, *options: Any) -> Workload:
        """Build the workload."""
        (at,) = options

        def loss(params: dict[str, Array]) -> Float[Array, ""]:
            x, y = params["x"], params["y"]
            return 0.5 * (y + at.zeta * x) * x**2 - at.eps * (x + y)

        return _without_data(name, criterion, loss, x=at.x0, y=at.y0)


class Valley3D(Recipe):
    """Parameters `{"x": (), "y": (2,)}`, and no data; seeds as in `Valley2D`.

    Example:
        >>> from cflows_ray.workloads import build_workload
        >>> workload = build_workload("valley_3d", eps=0.5, x0=0.0, y0=3.0, y1=4.0)
        >>> float(workload.problem.loss(workload.init(0), workload.problem.data))
        -1.5
    """

    summary = "three parameters with a round valley at the edge"
    option_classes = (WideValleyOptions,)

    def build(self, name: str, criterion: str, *options: Any) -> Workload:
        """Build the workload."""
        (at,) = options

        def loss(params: dict[str, Array]) -> Float[Array, ""]:
            x, y = params["x"], params["y"]
            height = jnp.sqrt(jnp.sum(y**2)) + 3.0 * jnp.exp(0.5 * x)
            return 0.5 * height * x**2 - at.eps * (x + y[0])

        return _without_data(name, criterion, loss, x=at.x0, y=(at.y0, at.y1))


def _without_data(
    name: str, criterion: str, loss: Callable[[dict[str, Array]], Array], x: float, y: Any
) -> Workload:
    from cflows_ray.problem import Problem

    def loss_on(params: dict[str, Array], data: tuple[()]) -> Float[Array, ""]:
        del data
        return loss(params)

    def init(seed: int) -> dict[str, Array]:
        factor = np.random.default_rng(seed).uniform(0.5, 1.5) if seed else 1.0
        return {"x": jnp.float32(x * factor), "y": jnp.asarray(y, jnp.float32)}

    return Workload(name=name, criterion=criterion, problem=Problem(loss=loss_on), init=init)


VALLEY_2D = Valley2D()
VALLEY_3D = Valley3D()
