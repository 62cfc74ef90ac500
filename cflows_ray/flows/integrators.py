"""How the substeps of a flow are made of Euler moves: the integrator, apart from the flow.

At the start of each substep a flow evaluates its derivatives once, and from there can make Euler
moves of several lengths. An integrator says of which lengths, and what becomes of them:

- `Euler`: one move a substep; first order.
- `Extrapolated`: from where every other substep starts, a move of twice the length is made as well,
  with the same derivatives; after both short ones the flow goes on from 2 (two short) - (one long),
  Richardson's extrapolation; second order, with as many derivatives. (Where w' = f(w) it is the
  midpoint rule.)

For an estimate of its error (`trust.py`) it says what it moves by, and where it has its full order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from cflows_ray.rules import AveragedRule, Moments


class Place(NamedTuple):
    """Where a flow is: w, shape (d,), the rule's state s, and the time t of the latter."""

    params: Float[Array, " d"]
    state: PyTree
    t: Float[Array, ""]


class Move(NamedTuple):
    """Where an Euler substep leads, and the velocity dw/dt with which, shape (d,)."""

    place: Place
    velocity: Float[Array, " d"]


def euler_move(
    rule: AveragedRule, here: Place, seen: Moments, length: float | Float[Array, ""]
) -> Move:
    """Return where an Euler substep leads: w + h dw/dt, s + h ds/dt, t + h."""
    rate = rule.motion(here.t, here.params, here.state, seen, length)
    move = lambda x, dx: x + length * dx  # noqa: E731
    place = Place(
        move(here.params, rate.params),
        jax.tree.map(move, here.state, rate.state),
        here.t + length,
    )
    return Move(place, rate.params)


class Integrator(Protocol):
    """Combines Euler moves; see the head of this file."""

    @property
    def lengths(self) -> tuple[float, ...]:
        """Lengths of the moves that it asks for, in substeps; the first is one substep."""

    def needed(self, j: Int[Array, ""]) -> Int[Array, ""]:
        """Return how many leading lengths the j-th substep of a step asks for."""

    def begin(self, here: Place) -> Any:
        """Return what is kept from one substep to the next, at the start of a step."""

    def combine(
        self, rule: AveragedRule, j: Int[Array, ""], moves: tuple[Place, ...], kept: Any
    ) -> tuple[Place, Any]:
        """Return where the j-th substep leads, by its moves, and what is kept."""

    def velocity(
        self, j: Int[Array, ""], velocities: tuple[Float[Array, " d"], ...]
    ) -> Float[Array, " d"]:
        """Return by what w moves in the j-th substep of a step, over its length.

        Where substeps are combined, only the sum over them is right.
        """

    def is_whole(self, j: Int[Array, ""]) -> Bool[Array, ""]:
        """Return whether the scheme has its full order where the j-th substep of a step begins."""


class Euler(NamedTuple):
    """First order: a substep is a move."""

    lengths: tuple[float, ...] = (1.0,)

    def needed(self, j: Int[Array, ""]) -> Int[Array, ""]:
        """Return 1."""
        return jnp.ones_like(j)

    def begin(self, here: Place) -> None:
        """Keep nothing."""
        del here

    def combine(
        self, rule: AveragedRule, j: Int[Array, ""], moves: tuple[Place, ...], kept: None
    ) -> tuple[Place, None]:
        """Return the move."""
        del rule, j
        return moves[0], kept

    def velocity(
        self, j: Int[Array, ""], velocities: tuple[Float[Array, " d"], ...]
    ) -> Float[Array, " d"]:
        """Return the velocity."""
        del j
        return velocities[0]

    def is_whole(self, j: Int[Array, ""]) -> Bool[Array, ""]:
        """Return True."""
        return jnp.ones_like(j, bool)


class Extrapolated(NamedTuple):
    """Second order: Richardson's extrapolation within each pair of substeps."""

    lengths: tuple[float, ...] = (1.0, 2.0)

    def needed(self, j: Int[Array, ""]) -> Int[Array, ""]:
        """Return 2 where a pair begins, 1 where it ends."""
        return jnp.where(j % 2 == 0, 2, 1)

    def begin(self, here: Place) -> Place:
        """Keep where the long move of a pair leads; none has been made yet."""
        return here

    def combine(
        self, rule: AveragedRule, j: Int[Array, ""], moves: tuple[Place, ...], kept: Place
    ) -> tuple[Place, Place]:
        """Return the short move; at the end of a pair, 2 (two short) - (one long)."""
        short, begins = moves[0], j % 2 == 0
        long = _where(begins, moves[1], kept)
        ahead = jax.tree.map(lambda s, far: 2.0 * s - far, short, long)
        ahead = ahead._replace(state=rule.admissible(ahead.state, short.state))
        return _where(begins, short, ahead), long

    def velocity(
        self, j: Int[Array, ""], velocities: tuple[Float[Array, " d"], ...]
    ) -> Float[Array, " d"]:
        """Return 2 (short - long) where a pair begins, 2 short where it ends."""
        short, long = velocities
        return 2.0 * jnp.where(j % 2 == 0, short - long, short)

    def is_whole(self, j: Int[Array, ""]) -> Bool[Array, ""]:
        """Return whether a pair begins."""
        return j % 2 == 0


def _where(condition: Array, first: Place, second: Place) -> Place:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), first, second)


INTEGRATORS: dict[str, Callable[[], Integrator]] = {
    "euler": Euler,
    "extrapolated": Extrapolated,
}
