"""Rows whose numbers may mean nothing: found step by step, counted, and said of a run.

What a process knows against its own row it says itself (`Step.doubt`); what can be seen of any
process alike is found here: a stiff step, a leap, a solver that missed its tolerance, and
derivatives that finite differences contradicted at the start (`differences.py`). See
docs/theory.md, "Whether to believe a flow".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cflows_ray.flows import Counts, Step
from cflows_ray.paired.differences import Checked
from cflows_ray.schema import Doubt, StepStatus

# An error as large as half of the step that was made: the velocity changed by its own length.
STIFF_SHARE = 0.5
# A step so many times as long as any of the optimizer's is no mean of those.
LEAP = 10.0
# Below so many roundings of w, what looks like an error of a step is rounding.
ROUNDINGS = 100.0
# Share of a process's rows from which on a doubt is more than a trifle.
TRIFLE = 0.05
REASONS = tuple(Doubt)
REMARKED = {Doubt.OFF_THE_EDGE: TRIFLE, Doubt.STIFF: TRIFLE, Doubt.NOT_FINITE: 0, Doubt.LEAPING: 0}
"""Doubts that a run's detail names, and from more than which share of a process's rows."""


class Doubts(NamedTuple):
    """The doubts of a process so far.

    Attributes:
        rows: rows with each of `REASONS`, shape (6,).
        error: estimated error of the flow's integration where its last step began; 0 without one.
    """

    rows: Int[Array, "6"]
    error: Float[Array, ""]

    @classmethod
    def none(cls, like: Float[Array, " d"]) -> Doubts:
        """Return those of a process that starts."""
        return cls(jnp.zeros(len(REASONS), jnp.int32), jnp.zeros((), like.dtype))

    def after(self, step: Step, doubt: Int[Array, ""], is_row: Bool[Array, ""]) -> Doubts:
        """Return them after a step; `is_row` if it has a row, which counts."""
        here = jnp.stack([(doubt & int(one)) > 0 for one in REASONS]) & is_row
        return Doubts(self.rows + here.astype(jnp.int32), _error(step, self.error))


def doubt_of(
    step: Step,
    before: Float[Array, " d"],
    doubts: Doubts,
    counts: Counts,
    checked: Checked,
    longest: Float[Array, ""],
) -> Int[Array, ""]:
    """Return the doubts of a row as a `schema.Doubt`.

    Args:
        step: which the row describes.
        before: where the process was one step earlier; where it starts, at the start.
        doubts: so far.
        counts: derivatives that the process has computed, those of the step among them.
        checked: what was found of the loss at the run's start.
        longest: length of the optimizer's longest step so far; 0 before its first.
    """
    is_unconverged = (step.status == StepStatus.EIG_UNCONVERGED) | (
        step.status == StepStatus.SDCP_UNCONVERGED
    )
    length = jnp.linalg.norm(step.params - before)
    made = _error(step, doubts.error) - doubts.error
    least = ROUNDINGS * jnp.finfo(before.dtype).eps * jnp.linalg.norm(step.params)
    used = jnp.stack([counts.gradients, counts.hvps, counts.third_derivatives]) > 0
    found = {
        Doubt.STIFF: (made > STIFF_SHARE * length) & (made > least),
        Doubt.LEAPING: (longest > 0) & (length > LEAP * longest) & (length > least),
        Doubt.UNCONVERGED: is_unconverged,
        Doubt.CONTRADICTED: jnp.any((checked.gaps > 0) & used),
    }
    doubt = jnp.asarray(step.doubt, jnp.int32)
    for one, holds in found.items():
        doubt |= jnp.where(holds, int(one), 0).astype(jnp.int32)
    return doubt


def _error(step: Step, before: Float[Array, ""]) -> Float[Array, ""]:
    found = step.record.get("flow_error")
    return before if found is None else jnp.asarray(found, before.dtype)


# In words -------------------------------------------------------------------------------------


def doubts_in_words(processes: Mapping[str, Any]) -> str | None:
    """Return the column `doubts` of `runs`, from the states of a run's processes; None for none.

    Example:
        "central: 12 off the edge, 3 stiff; stable: 4 stiff"
    """
    said = []
    for name, process in processes.items():
        counts = [int(n) for n in process.doubts.rows]
        parts = [f"{n} {_phrase(one)}" for one, n in zip(REASONS, counts, strict=True) if n]
        if parts:
            said.append(f"{name}: {', '.join(parts)}")
    return "; ".join(said) or None


def worth_a_remark(processes: Mapping[str, Any]) -> Iterator[str]:
    """Say which doubts hold for more rows of a process than `REMARKED` lets pass.

    Unconverged rows and contradicted derivatives have remarks of their own (`remarks.py`).
    """
    for name, process in processes.items():
        rows = int(process.rows[0])
        counts = dict(zip(REASONS, (int(n) for n in process.doubts.rows), strict=True))
        for one, share in REMARKED.items():
            if counts[one] > share * rows:
                yield f"{counts[one]} of {rows} rows of {name} are {_phrase(one)}"


def _phrase(reason: Doubt) -> str:
    return reason.word.replace("_", " ")
