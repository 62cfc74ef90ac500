"""A workload from outside: a quadratic bowl."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cflows_ray.checks import positive
from cflows_ray.workloads import Recipe, Workload


@dataclass(frozen=True)
class BowlOptions:
    """L(w) = ½ Σᵢ steepness · i · wᵢ², i = 1, 2, 3."""

    steepness: float = 1.0

    def __post_init__(self) -> None:
        positive("steepness", self.steepness)


class Bowl(Recipe):
    """Three parameters, and the steepnesses as data."""

    summary = "a quadratic bowl in three parameters"
    option_classes = (BowlOptions,)

    def build(self, name: str, criterion: str, *options: Any) -> Workload:
        """Build the workload."""
        import jax.numpy as jnp

        from cflows_ray import Problem

        def loss(params: Any, data: Any) -> Any:
            return 0.5 * jnp.sum(data * params**2)

        def init(seed: int) -> Any:
            return jnp.asarray(np.random.default_rng(seed).uniform(0.5, 1.5, 3), jnp.float32)

        problem = Problem(loss=loss, data=self.arrays(name, *options)["curvature"])
        return Workload(name=name, criterion=criterion, problem=problem, init=init)

    def arrays(self, name: str, *options: Any) -> dict[str, np.ndarray]:
        """Return the curvatures along the three axes."""
        del name
        return {"curvature": options[0].steepness * np.arange(1.0, 4.0, dtype=np.float32)}


BOWL = Bowl()
