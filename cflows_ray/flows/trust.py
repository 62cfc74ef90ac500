"""Whether to believe a flow's numbers: its own estimate of what its integration got wrong.

An embedded pair without a further derivative: beside the flow's scheme, the rule's state s goes
along by Heun's second-order one (`exponential.py`, since a filter's memory may forget many times
within a substep) with the moments that the flow sees anyway, and the trapezoidal rule over its
velocities says where a substep would have led. How far the scheme's own displacement is from that
is an estimate of the local error; they are added up as norms. See docs/theory.md, "Whether to
believe a flow".
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from cflows_ray.flows.exponential import heun, settled
from cflows_ray.flows.integrators import Place
from cflows_ray.rules import AveragedRule, Moments, Motion
from cflows_ray.schema import Doubt

# So far may an effective sharpness be from 2 that is held there: one per cent.
EDGE_MARGIN = 0.02


class Passed(NamedTuple):
    """What a flow keeps of its substeps so far, to estimate the error of its integration.

    Attributes:
        error: estimated local errors added up, L2, in the unit of parameters.
        owed: by how much the scheme fell short of the trapezoidal rule since it last was at a
            point of its full order, shape (d,).
        state: the rule's state, by Heun's scheme.
        rate: dw/dt and ds/dt with that state, where the last substep began.
        length: of the last substep; 0 before the first.
    """

    error: Float[Array, ""]
    owed: Float[Array, " d"]
    state: PyTree
    rate: Motion
    length: Float[Array, ""]

    @classmethod
    def begin(cls, params: Float[Array, " d"], state: PyTree) -> Passed:
        """Return what a flow keeps that starts at w and s."""
        zero = jnp.zeros((), params.dtype)
        rate = Motion(jnp.zeros_like(params), jax.tree.map(jnp.zeros_like, state))
        return cls(zero, jnp.zeros_like(params), state, rate, zero)

    def arrive(
        self,
        rule: AveragedRule,
        here: Place,
        seen: Moments,
        is_whole: Bool[Array, ""] | bool = True,
    ) -> Passed:
        """Return it at the start of a substep, whose moments say how the last one ended.

        Args:
            rule: the averaged rule.
            here: where the flow is.
            seen: moments there.
            is_whole: whether the scheme has its full order here, and is not half-way through a
                pair.
        """

        def rate_with(state: PyTree) -> Motion:
            return rule.motion(here.t, here.params, state, seen, 0.0)

        later = lambda state: rate_with(state).state  # noqa: E731
        end = heun(rule, self.state, self.rate.state, later, self.length, here.state)
        rate = rate_with(settled(rule, end.euler, end.whole, self.length))
        owed = self.owed + 0.5 * self.length * (self.rate.params + rate.params)
        return Passed(
            error=self.error + jnp.where(is_whole, jnp.linalg.norm(owed), 0.0),
            owed=jnp.where(is_whole, 0.0, owed),
            state=end.whole,
            rate=rate,
            length=self.length,
        )

    def leave(self, velocity: Float[Array, " d"], length: float | Float[Array, ""]) -> Passed:
        """Return it after a substep of some length with a velocity."""
        length = jnp.asarray(length, self.length.dtype)
        return self._replace(owed=self.owed - length * velocity, length=length)


class Followed(NamedTuple):
    """Where an optimizer step leads, and the estimated error where it began."""

    place: Place
    passed: Passed
    error_here: Float[Array, ""]


def edge_doubt(
    sharpness: Float[Array, ""],
    num_critical: Int[Array, ""],
    held: Float[Array, "k k"],
    has_moved: Bool[Array, ""],
) -> Int[Array, ""]:
    """Return OFF_THE_EDGE where a flow that holds its effective sharpness at 2 has not.

    Above, wherever it has critical directions and has moved (it begins where the optimizer is);
    below only if Σ acted in the substep that led here, since an X that is not 0 promises 2 at its
    end. (At an onset X acts a substep before the sharpness is 2.)

    Args:
        sharpness: top effective eigenvalue.
        num_critical: critical directions.
        held: X of the substep that led here; zero where there was none.
        has_moved: whether there was one.
    """
    above = (num_critical > 0) & (sharpness > 2.0 + EDGE_MARGIN) & has_moved
    below = (jnp.trace(held) > 0) & (sharpness < 2.0 - EDGE_MARGIN)
    return jnp.where(above | below, int(Doubt.OFF_THE_EDGE), 0).astype(jnp.int32)
