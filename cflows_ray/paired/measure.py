"""What is measured of every process, whatever it is: distances, network outputs, test loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from cflows_ray.curvature import float_mode
from cflows_ray.flows import Reference, Step
from cflows_ray.problem import ParamStructure

EVALUATED = ("output_distance", "train_accuracy", "test_loss", "test_accuracy")


@dataclass(frozen=True)
class Evaluations:
    """What can be evaluated at a point of parameters, and on which data; None where undefined."""

    structure: ParamStructure
    loss: Callable[[Any, Any], Array] | None
    outputs: Callable[[Any, Any], Array] | None
    accuracy: Callable[[Any, Any], Array] | None
    data: PyTree
    probe: PyTree
    test_data: PyTree

    def at_all(
        self,
        points: Float[Array, "n d"],
        reference: Float[Array, " d"],
        wanted: Bool[Array, ""],
    ) -> dict[str, Float[Array, " n"]]:
        """Return the columns `EVALUATED` at several points; NaN where undefined or not wanted."""

        def evaluate(points: Float[Array, "n d"]) -> dict[str, Array]:
            # one after the other through one and the same code: networks take long to compile
            return jax.lax.map(lambda w: self.at(w, reference), points)

        def blank(points: Float[Array, "n d"]) -> dict[str, Array]:
            return dict.fromkeys(EVALUATED, jnp.full(points.shape[0], jnp.nan, points.dtype))

        return jax.lax.cond(wanted, evaluate, blank, points)

    def at(self, params: Float[Array, " d"], reference: Float[Array, " d"]) -> dict[str, Array]:
        """Return the columns `EVALUATED` at a point; NaN where undefined."""
        found = dict.fromkeys(EVALUATED, jnp.full((), jnp.nan, params.dtype))
        with float_mode(params.dtype):
            tree = self.structure.unflatten(params)
            if self.outputs is not None:
                gap = self.outputs(tree, self.probe)
                gap = gap - self.outputs(self.structure.unflatten(reference), self.probe)
                found["output_distance"] = jnp.sqrt(jnp.sum(gap**2) / gap.shape[0])
            if self.accuracy is not None:
                found["train_accuracy"] = self.accuracy(tree, self.data)
            if self.loss is not None and self.test_data is not None:
                found["test_loss"] = self.loss(tree, self.test_data)
                if self.accuracy is not None:
                    found["test_accuracy"] = self.accuracy(tree, self.test_data)
            nowhere = jnp.isnan(params[0])
            return {
                name: jnp.where(nowhere, jnp.nan, x).astype(params.dtype)
                for name, x in found.items()
            }


def distances(
    step: Step,
    reference: Reference,
    observed: Mapping[str, Array],
    start: Float[Array, " d"],
) -> dict[str, Array]:
    """Return the columns that compare a process with the optimizer, whose state is `observed`."""
    to_midpoint = jnp.linalg.norm(step.params - reference.midpoint)
    found = {
        "distance_to_discrete": jnp.linalg.norm(step.params - reference.params),
        "distance_to_midpoint": jnp.where(reference.has_previous, to_midpoint, jnp.nan),
        "distance_from_start": jnp.linalg.norm(step.params - start),
    }
    for name in step.observed.keys() & observed.keys():
        gap = jnp.linalg.norm(jnp.ravel(step.observed[name] - observed[name]))
        found[f"{name}_rel_error"] = gap / jnp.linalg.norm(jnp.ravel(observed[name]))
    return found
