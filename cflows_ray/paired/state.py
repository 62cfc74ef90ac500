"""What a paired run keeps between two steps, and what a step says: its state and its rows."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int, PyTree

from cflows_ray.flows import Counts, Listed
from cflows_ray.paired.differences import Checked
from cflows_ray.paired.doubts import Doubts
from cflows_ray.paired.targets import Windows
from cflows_ray.schema import StepStatus

RUNNING, FINISHED, RUN_DIVERGED = range(3)
# How a process ends, in the order in which they are counted.
ENDINGS = (StepStatus.STOPPED, StepStatus.DIVERGED)
# In place of a row's status: the process had ended before, and has no row.
ABSENT = -1


class Optimizer(NamedTuple):
    """The optimizer between two steps.

    Attributes:
        previous, previous_state: w_{t-1}, and s_{t-1} without g_{t-1}; the latter is kept only
            where flows begin anew.
        has_previous: whether they exist.
        params, rule_state: w_t, and s_t without g_t.
    """

    previous: Float[Array, " d"]
    previous_state: PyTree
    has_previous: Bool[Array, ""]
    params: Float[Array, " d"]
    rule_state: PyTree


class LossLimits(NamedTuple):
    """Loss at the common start, and the loss above which the run counts as diverged."""

    start: Float[Array, ""]
    diverged: Float[Array, ""]


class ProcessState(NamedTuple):
    """A process in a run.

    Attributes:
        own: its own state.
        params: the point that its last row described, shape (d,).
        status: OK, or how it ended (STOPPED, DIVERGED).
        is_unsaid: whether it ended at a step without a row; the next row says it.
        counts: derivatives since it started.
        rows: rows so far, and how many of them a solver left unconverged, shape (2,); `doubts`
            counts the latter too, but saved states have them here.
        doubts: of those rows, and what the next doubt goes by.
        ends: in how many earlier forecasts it ended in which of `ENDINGS`, shape (2,); kept only
            where flows begin anew.
    """

    own: Any
    params: Float[Array, " d"]
    status: Int[Array, ""]
    is_unsaid: Bool[Array, ""]
    counts: Counts
    rows: Int[Array, "2"]
    doubts: Doubts
    ends: Int[Array, "2"] | None


class PairedState(NamedTuple):
    """Everything that the rest of a run depends on.

    Attributes:
        step: optimizer steps done since the common starting point, int32.
        total: steps to do, int32.
        warmup: steps done before it, int32.
        outcome: RUNNING, FINISHED or RUN_DIVERGED.
        seed: seed of the eigensolver's random rows.
        limits: the loss at the common start, and above which loss the run has diverged.
        checked: what was found of the loss's derivatives where the run began.
        longest_step: length of the optimizer's longest step so far, from the last one of the
            warm-up on; 0 before its first.
        start: where the flows started, shape (d,).
        start_step: step at which they did, int32.
        is_again: whether this step's rows are made, and flows have begun anew.
        optimizer: w_t and s_t.
        processes: the optimizer's measurements ("discrete") and the flows, by name.
        windows: means of the present windows, where some were asked for.
    """

    step: Int[Array, ""]
    total: Int[Array, ""]
    warmup: Int[Array, ""]
    outcome: Int[Array, ""]
    seed: Int[Array, ""]
    limits: LossLimits
    checked: Checked
    longest_step: Float[Array, ""]
    start: Float[Array, " d"]
    start_step: Int[Array, ""]
    is_again: Bool[Array, ""]
    optimizer: Optimizer
    processes: dict[str, ProcessState]
    windows: Windows | None

    @property
    def num_eigs(self) -> int:
        """Tracked directions k."""
        return self.processes["discrete"].own.basis.shape[0]


class Row(NamedTuple):
    """One row of the `steps` table: what the process recorded and what is measured of it."""

    step: Int[Array, ""]
    status: Int[Array, ""]
    doubt: Int[Array, ""]
    counts: Counts
    values: dict[str, Array | Listed]
