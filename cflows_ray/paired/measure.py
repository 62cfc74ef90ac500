"""What is measured of every process, whatever it is: distances, network outputs, test loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from cflows_ray.curvature import averaged, float_mode
from cflows_ray.flows import Oscillation, Reference, Step
from cflows_ray.problem import ParamStructure

PREDICTED = ("test_loss_predicted", "output_distance_predicted")
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

    def predicted(
        self,
        steps: Sequence[Step],
        reference: Reference,
        wanted: Bool[Array, ""],
    ) -> dict[str, Float[Array, " n"]]:
        """Return the columns `PREDICTED` of several flows; NaN where undefined or not wanted.

        What a flow with covariance Σ predicts of any f is f + ½<f'', Σ>; one without Σ, f itself.
        Outputs are compared with the optimizer's, averaged over its period-two oscillation.
        """
        points = jnp.stack([step.params for step in steps])
        rank = max((s.oscillation.rows.shape[0] for s in steps if s.oscillation), default=0)
        swings = [_padded(step.oscillation, rank, points[0]) for step in steps]
        rows = jnp.stack([swing.rows for swing in swings])
        ranks = jnp.stack([swing.rank for swing in swings])

        def evaluate() -> dict[str, Array]:
            around = jnp.stack([reference.previous, reference.params, reference.following])
            mean = self._mean_outputs(around, reference.has_previous)
            return jax.lax.map(
                lambda at: self._predicted_at(at[0], at[1], at[2], mean), (points, rows, ranks)
            )

        def blank() -> dict[str, Array]:
            return dict.fromkeys(PREDICTED, jnp.full(len(steps), jnp.nan, points.dtype))

        return jax.lax.cond(wanted, evaluate, blank)

    def _mean_outputs(
        self, around: Float[Array, "3 d"], is_defined: Bool[Array, ""]
    ) -> Array | None:
        """Return ¼(f(w_{t-1}) + 2f(w_t) + f(w_{t+1})), f the outputs; NaN where undefined."""
        if self.outputs is None:
            return None
        with float_mode(around.dtype):
            found = jax.lax.map(self._outputs_at, around)
            mean = 0.25 * (found[0] + 2.0 * found[1] + found[2])
            return jnp.where(is_defined, mean, jnp.nan)

    def _outputs_at(self, params: Float[Array, " d"]) -> Array:
        assert self.outputs is not None
        return self.outputs(self.structure.unflatten(params), self.probe)

    def _predicted_at(
        self,
        params: Float[Array, " d"],
        rows: Float[Array, "r d"],
        rank: Int[Array, ""],
        mean_outputs: Array | None,
    ) -> dict[str, Array]:
        found = dict.fromkeys(PREDICTED, jnp.full((), jnp.nan, params.dtype))
        loss = self.loss
        if loss is not None and self.test_data is not None:
            found["test_loss_predicted"] = averaged(
                lambda w: loss(self.structure.unflatten(w), self.test_data), params, rows, rank
            )
        if mean_outputs is not None:
            gap = averaged(self._outputs_at, params, rows, rank) - mean_outputs
            found["output_distance_predicted"] = jnp.sqrt(jnp.sum(gap**2) / gap.shape[0])
        return {name: x.astype(params.dtype) for name, x in found.items()}


def _padded(swing: Oscillation | None, rank: int, like: Float[Array, " d"]) -> Oscillation:
    """Return an oscillation of so many rows, zeros below; without one, none that counts."""
    if swing is None:
        none = jnp.zeros((rank, like.size), like.dtype)
        return Oscillation(none, jnp.zeros((), jnp.int32))
    missing = rank - swing.rows.shape[0]
    return Oscillation(jnp.pad(swing.rows, ((0, missing), (0, 0))), swing.rank)


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
