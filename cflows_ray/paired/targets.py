"""Targets beside the iterates and midpoints: half-way points, and means over windows of steps.

    distance_to_half      |½(c_{t-1} + c_t) - ½(w_{t-1} + w_t)|, c_t the process's point
    distance_to_mean_W    |1/W Σ_s (c_s - w_s)|, s the W steps up to t

A process may say itself what it predicts of the half-way point (`Step.half`). Windows follow each
other without overlap from the first step after the flows' start; the mean over one is in the row of
its last step, or in the next row that is recorded. The window `loop` is as long as the period of
the self-stabilisation loops (`loop_period` of the central flow) where it begins; without one it
waits.

Memory: one vector for each process and window.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cflows_ray.flows import Reference, Step

LOOP = "loop"
# A loop period above this is no period: the sharpness hardly rises, for the moment.
LONGEST_LOOP = 500


class Windows(NamedTuple):
    """The windows that are open, m of them, the same for all processes.

    Attributes:
        counted: steps in each so far.
        length: steps that each will have; 0 where it waits for a loop period.
        sums: Σ (c_s - w_s) by process.
        means: of windows that ended since the last row: |mean|, by process; NaN for none.
    """

    counted: Int[Array, " m"]
    length: Int[Array, " m"]
    sums: dict[str, Float[Array, "m d"]]
    means: dict[str, Float[Array, " m"]]


def begin_windows(
    words: tuple[str, ...], processes: tuple[str, ...], like: Float[Array, " d"]
) -> Windows:
    """Return the windows `words` ("5", "loop") of these processes at the flows' start."""
    m = len(words)
    return Windows(
        counted=jnp.zeros((m,), jnp.int32),
        length=_lengths(words),
        sums={name: jnp.zeros((m, like.size), like.dtype) for name in processes},
        means={name: jnp.full((m,), jnp.nan, like.dtype) for name in processes},
    )


def add_step(
    windows: Windows,
    words: tuple[str, ...],
    steps: Mapping[str, Step],
    reference: Reference,
    is_counted: Bool[Array, ""],
) -> Windows:
    """Return the windows with one more step, if it counts: the start itself does not."""
    begins = windows.counted == 0
    length = jnp.where(begins, _lengths(words, _loop_length(steps)), windows.length)
    is_open = is_counted & (length > 0)
    count = windows.counted + is_open
    ended = is_open & (count == length)
    sums, means = {}, {}
    for name, before in windows.sums.items():
        gap = steps[name].params - reference.params
        total = jnp.where(is_open[:, None], before + gap, before)
        mean = jnp.linalg.norm(total, axis=1) / jnp.maximum(length, 1)
        means[name] = jnp.where(ended, mean.astype(total.dtype), windows.means[name])
        sums[name] = jnp.where(ended[:, None], 0.0, total)
    return Windows(jnp.where(ended, 0, count), length, sums, means)


def said(windows: Windows, is_said: Bool[Array, ""]) -> Windows:
    """Return the windows after a row, in which ended ones have been said."""
    means = {name: jnp.where(is_said, jnp.nan, x) for name, x in windows.means.items()}
    return windows._replace(means=means)


def mean_columns(
    windows: Windows, words: tuple[str, ...], process: str
) -> dict[str, Float[Array, ""]]:
    """Return the columns `distance_to_mean_...` of a process; none for one that is not followed."""
    found = windows.means.get(process)
    if found is None:
        return {}
    return {f"distance_to_mean_{word}": found[i] for i, word in enumerate(words)}


def half_distance(
    step: Step, before: Float[Array, " d"], reference: Reference, is_first: Bool[Array, ""]
) -> Float[Array, ""]:
    """Return the column `distance_to_half`; NaN in the first row of a flow.

    `before` is the process's point one step earlier.
    """
    own = 0.5 * (before + step.params) if step.half is None else step.half
    gap = own - 0.5 * (reference.previous + reference.params)
    return jnp.where(is_first, jnp.nan, jnp.linalg.norm(gap))


def _lengths(words: tuple[str, ...], loop: Int[Array, ""] | int = 0) -> Int[Array, " m"]:
    found = [loop if word == LOOP else int(word) for word in words]
    return jnp.stack([jnp.asarray(n, jnp.int32) for n in found])


def _loop_length(steps: Mapping[str, Step]) -> Int[Array, ""]:
    """Return the central flow's loop period in whole steps; 0 where it has none."""
    if "central" not in steps:
        return jnp.zeros((), jnp.int32)
    period = jnp.round(cast("Array", steps["central"].record["loop_period"]))
    defined = (period >= 1) & (period <= LONGEST_LOOP)
    return jnp.where(defined, period, 0).astype(jnp.int32)
