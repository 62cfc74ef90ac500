"""Losses that are not smooth: found by what they are made of, confirmed along lines.

What automatic differentiation returns for ReLU, max pooling or rounding are derivatives of the
pieces; what happens between pieces, it leaves out, so that flows of such a loss mean little. Two
looks, the second only where the first finds something:

1. `suspects`: operations of the traced loss that may jump or have a kink, and matter to its value.
   Smooth functions are made of them too (logsumexp takes out a maximum, softplus an absolute
   value).
2. `has_jump`: along a line, φ(t) = L(w + t u), the change of φ, φ' and uᵀHu = φ'' between two
   points must be the integral of the derivative that differentiation returns. Where it is most
   off, the interval is cut into pieces, again and again: what a smooth function leaves over falls
   with a power of the length, a jump stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any

import numpy as np
from jax.extend import core, source_info_util
from jaxtyping import Float

# Operations by what people call them.
WORDS = {
    **dict.fromkeys(("max", "reduce_max", "cummax"), "max"),
    **dict.fromkeys(("min", "reduce_min", "cummin"), "min"),
    **dict.fromkeys(("lt", "le", "gt", "ge", "eq", "ne"), "a comparison"),
    **dict.fromkeys(
        ("reduce_window_max", "reduce_window_min", "select_and_scatter_add", "reduce_window"),
        "max pooling",
    ),
    "abs": "abs",
    "sign": "sign",
    "clamp": "clip",
    "round": "round",
    "floor": "floor",
    "ceil": "ceil",
    "rem": "remainder",
    "argmax": "argmax",
    "argmin": "argmin",
    "sort": "sort",
    "top_k": "top_k",
}
# Under `stop_gradient` these shift a function without changing it, as in softmax.
SHIFTS = ("max", "reduce_max")
# Smooth functions of JAX that are made of suspicious parts.
SMOOTH = ("logaddexp",)
MOST_NAMED = 3

PIECES, LEVELS = 8, 5
# A jump is told from rounding by so many units in the last place of the largest value on the line,
# and by standing out of the other pieces so many times.
ROUNDING, OUTSTANDING = 300.0, 30.0


def suspects(jaxpr: Any, num_params: int) -> str:
    """Name the operations of a traced loss that may not be smooth; empty where there are none.

    Args:
        jaxpr: the loss, whose first `num_params` arguments are the leaves of the parameters.
        num_params: how many.
    """
    depends, live = set(jaxpr.invars[:num_params]), set(_variables(jaxpr.outvars))
    found: dict[str, str] = {}
    for word, place in _suspicious(jaxpr, depends, live, set()):
        found.setdefault(place or word, f"{word} at {place}" if place else word)
    named = list(found.values())
    more = [f"{len(named) - MOST_NAMED} more"] if len(named) > MOST_NAMED else []
    return ", ".join(named[:MOST_NAMED] + more)


def _suspicious(jaxpr: Any, depends: set, live: set, stopped: set) -> Iterator[tuple[str, str]]:
    """Yield operations that depend on parameters, may not be smooth, and matter; with their lines.

    Args:
        jaxpr: where to look.
        depends: its arguments that depend on parameters; what follows from them is added.
        live: its results that matter to the loss; what they are made from is added.
        stopped: the same, for results that matter through `stop_gradient` alone.
    """
    for equation in jaxpr.eqns:
        if depends.intersection(_variables(equation.invars)):
            depends.update(equation.outvars)
    for equation in reversed(jaxpr.eqns):
        name, arguments = equation.primitive.name, set(_variables(equation.invars))
        is_live = not live.isdisjoint(equation.outvars)
        is_stopped = not stopped.isdisjoint(equation.outvars)
        if is_live and name != "stop_gradient":
            live |= arguments
        elif is_live or is_stopped:
            stopped |= arguments
        if (is_live or is_stopped) and not depends.isdisjoint(arguments):
            place = _place(equation)
            is_shift = name in SHIFTS and not is_live
            if name in WORDS and not is_shift and not _leads_to_logarithm(equation, jaxpr):
                yield WORDS[name], place
            for word, inner in _inside(equation, depends, is_live):
                yield word, inner or place


def _inside(equation: Any, depends: set, is_live: bool) -> Iterator[tuple[str, str]]:
    """Yield what is suspicious inside a call, a loop or a branch."""
    for jaxpr in core.jaxprs_in_params(equation.params):
        source = str(getattr(jaxpr.debug_info, "func_src_info", ""))
        if any(source.startswith(f"{name} at ") and "/jax/" in source for name in SMOOTH):
            continue
        given = set(jaxpr.invars)
        if equation.primitive.name not in ("scan", "while", "cond"):
            # of loops and branches, arguments are not told apart: the second look decides
            pairs = zip(jaxpr.invars, equation.invars, strict=False)
            given = {i for i, o in pairs if not isinstance(o, core.Literal) and o in depends}
        results = set(_variables(jaxpr.outvars))
        live, stopped = (results, set()) if is_live else (set(), results)
        yield from _suspicious(jaxpr, given, live, stopped)


def _place(equation: Any) -> str:
    """Return the line of the user's code that an operation comes from; empty where unknown."""
    line = re.match(r"(.*?):(\d+)", source_info_util.summarize(equation.source_info))
    return f"{PurePath(line[1]).name}:{line[2]}" if line else ""


def _variables(atoms: Any) -> Iterator[Any]:
    return (x for x in atoms if not isinstance(x, core.Literal))


def _leads_to_logarithm(equation: Any, jaxpr: Any) -> bool:
    """Say whether |x| is made for log |x|, whose place to break is not a kink but infinite."""
    if equation.primitive.name != "abs":
        return False
    (out,) = equation.outvars
    uses = [e.primitive.name for e in jaxpr.eqns if out in set(_variables(e.invars))]
    return bool(uses) and set(uses) == {"log"} and out not in set(_variables(jaxpr.outvars))


def has_jump(evaluate: Callable[[np.ndarray], Float[np.ndarray, "n 4"]], epsilon: float) -> bool:
    """Say whether φ, φ' or φ'' jumps where its derivative does not say so, for t in [-1, 1].

    Args:
        evaluate: φ, φ', φ'' and φ''' at `PIECES` + 1 places.
        epsilon: distance from 1 to the next number of the dtype they are computed in.

    Example:
        >>> relu = lambda t: np.stack([t * (t > 0.3), t > 0.3, 0 * t, 0 * t], axis=1)
        >>> has_jump(relu, 1e-16), has_jump(lambda t: np.stack([np.exp(t)] * 4, axis=1), 1e-16)
        (True, False)
    """
    whole = np.linspace(-1.0, 1.0, PIECES + 1)
    first = evaluate(whole)
    if not np.all(np.isfinite(first)):
        return False
    scales = np.max(np.abs(first), axis=0)
    for order in (2, 1, 0):
        places, values = whole, first
        for _ in range(LEVELS - 1):
            worst = int(np.argmax(_leftover(places, values, order)))
            places = np.linspace(places[worst], places[worst + 1], PIECES + 1)
            values = evaluate(places)
        left = _leftover(places, values, order)
        limit = ROUNDING * epsilon * scales[order] + OUTSTANDING * np.median(left)
        if np.all(np.isfinite(values)) and np.max(left) > limit:
            return True
    return False


def _leftover(places: np.ndarray, values: np.ndarray, order: int) -> np.ndarray:
    """Return by how much the change of φ^(order) over each piece is not its derivative's integral.

    By the trapezoidal rule, corrected at the ends where one more derivative is known.
    """
    step = np.diff(places)
    change = np.diff(values[:, order])
    slope = values[:, order + 1]
    integral = 0.5 * step * (slope[:-1] + slope[1:])
    if order + 2 < values.shape[1]:
        integral = integral - step**2 / 12.0 * np.diff(values[:, order + 2])
    return np.abs(change - integral)
