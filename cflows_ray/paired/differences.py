"""Derivatives as differentiation makes them against finite differences, once at a run's start.

Along a direction u of the parameters' own length, three pairs are compared: the loss and its
gradient, the gradient and Hu, Hu and ∇³L[u, u, ·]. A central difference

    F(w + εu) - F(w - εu) = 2ε F'(w) u + O(ε³)

is off by truncation where ε is large and by rounding where it is small; between factors of 4 of ε,
the one falls by 16 and the other grows by 4, so that neither looks like agreement. Only where
differences agree among themselves, and none agrees with differentiation, is the latter wrong: this
holds in any precision.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

ORDERS = ("gradient", "Hessian", "third derivative")
# ε, relative to the parameters.
LEVELS = tuple(2.0**-k for k in (4, 6, 8, 10, 12))
# Relative to the larger of the two, so much must derivative and difference be apart, at every ε.
LEAST_GAP = 0.01
# Two differences agree if they are closer than this share of what either is from the derivative.
AGREEING = 0.25
# A difference of less than so many roundings of the values says nothing.
ROUNDING = 300.0


class Checked(NamedTuple):
    """What was found of a loss at the start of a run.

    Attributes:
        not_finite: the first of `ORDERS` that is not finite though the loss is, counted from 1; 0
            if all are.
        gaps: of each of `ORDERS`, how far it is from finite differences that contradict it, over
            the larger of the two; 0 where none does. Float64, shape (3,).
    """

    not_finite: Int[Array, ""]
    gaps: Float[Array, "3"]

    @classmethod
    def nothing(cls) -> Checked:
        """Return that nothing was found."""
        return cls(jnp.zeros((), jnp.int32), jnp.zeros(3, jnp.float64))


def first_not_finite(derivatives: Sequence[np.ndarray]) -> int:
    """Return which derivative is the first that is not finite, counted from 1; 0 for none.

    Args:
        derivatives: the loss and its derivatives (`curvature.Along`); 0 too if the loss is not
            finite itself.
    """
    value, *others = derivatives
    if not np.isfinite(value):
        return 0
    broken = [order for order, x in enumerate(others, 1) if not np.all(np.isfinite(x))]
    return broken[0] if broken else 0


def contradictions(
    evaluate: Callable[[float], Sequence[np.ndarray]], u: Float[np.ndarray, " d"], epsilon: float
) -> Float[np.ndarray, "3"]:
    """Return `Checked.gaps`.

    Args:
        evaluate: L, ∇L, Hu and ∇³L[u, u, ·] at w + t u, as functions of t (`curvature.Along`).
        u: direction.
        epsilon: distance from 1 to the next number of the type that the loss computes in.

    Example:
        >>> def wrong(t):  # L = w³ with a third derivative of 3
        ...     return [np.array((2 + t) ** 3), *np.array([[3 * (2 + t) ** 2], [6 * (2 + t)], [3]])]
        >>> contradictions(wrong, np.ones(1), 1e-16).round(6)
        array([0. , 0. , 0.5])
    """
    here = _as_functions(evaluate(0.0), u)
    ahead, behind = ([_as_functions(evaluate(s * e), u) for e in LEVELS] for s in (1.0, -1.0))
    gaps = np.zeros(len(ORDERS))
    for order in range(len(ORDERS)):
        claimed = here[order][1]
        values = [(up[order][0], down[order][0]) for up, down in zip(ahead, behind, strict=True)]
        gaps[order] = _gap(claimed, values, epsilon)
    return gaps


def _as_functions(
    found: Sequence[np.ndarray], u: Float[np.ndarray, " d"]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return F and F'u for the loss, its gradient and Hu, as vectors of float64."""
    value, grad, hessian_u, third_uu = (np.asarray(x, np.float64) for x in found)
    slope = np.dot(grad, np.asarray(u, np.float64))
    return [
        (np.atleast_1d(value), np.atleast_1d(slope)),
        (grad, hessian_u),
        (hessian_u, third_uu),
    ]


def _gap(
    claimed: np.ndarray, values: Sequence[tuple[np.ndarray, np.ndarray]], epsilon: float
) -> float:
    """Return how far F'u, as claimed, is from differences of F that contradict it; 0 for none."""
    with np.errstate(all="ignore"):
        found = [(up - down) / (2.0 * e) for e, (up, down) in zip(LEVELS, values, strict=True)]
        apart = np.array([np.linalg.norm(one - claimed) for one in found])
        sizes = np.array([max(np.linalg.norm(one), np.linalg.norm(claimed)) for one in found])
        rounding = np.array(
            [
                ROUNDING * epsilon * max(np.linalg.norm(up), np.linalg.norm(down)) / (2.0 * e)
                for e, (up, down) in zip(LEVELS, values, strict=True)
            ]
        )
        changes = [np.linalg.norm(a - b) for a, b in itertools.pairwise(found)]
    if not np.all(np.isfinite([*apart, *sizes])) or np.any(apart <= LEAST_GAP * sizes):
        return 0.0
    # of the differences above rounding the finest two: coarser ones may agree on a mean
    told = np.flatnonzero((apart > rounding)[:-1] & (apart > rounding)[1:])
    if not len(told):
        return 0.0
    i = int(told[-1])
    agree = changes[i] < AGREEING * min(apart[i], apart[i + 1])
    return float(apart[i + 1] / sizes[i + 1]) if agree else 0.0
