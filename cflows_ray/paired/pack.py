"""Packs: several paired runs of one problem in one batched program.

A small network leaves a big GPU idle; a pack fills it with learning rates and seeds. Every member
stops, diverges or asks for more tracked directions for itself; numbers are those of single runs up
to rounding. On a CPU a pack gains nothing: a batched program runs both branches of every
conditional, and every loop as long as its slowest member needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from cflows_ray.checks import integer
from cflows_ray.paired.rows import check_one_loss, steps_frame
from cflows_ray.paired.run import PairedRun, as_one_frame
from cflows_ray.paired.state import RUNNING, PairedState

# Share of a device's memory that a pack may take, by the compiler's own estimate.
MEMORY_SHARE = 0.8
# A larger pack must be so much faster than the one before to be worth its memory.
LEAST_GAIN = 1.1
PROBE_STEPS = 5
SIZES = (1, 4, 16, 64)  # that are tried


class PairedPack:
    """Paired runs that advance together.

    Args:
        runs: started runs of the same problem, options and kind of rule; learning rate, β₂, ε,
            seed, starting point and lengths may differ.

    Raises `ValueError` saying in what the runs differ that may not.

    Example:
        >>> import jax.numpy as jnp
        >>> from cflows_ray import GradientDescent, PairedOptions, PairedPack, PairedRun, Problem
        >>> problem = Problem(lambda params, data: jnp.sum((params - data) ** 2), jnp.ones(3))
        >>> options = PairedOptions(flows=("stable",))
        >>> runs = [PairedRun(problem, GradientDescent(lr), options) for lr in (0.1, 0.2)]
        >>> states = [run.start(jnp.zeros(3), steps=10, warmup=0, seed=0) for run in runs]
        >>> states, rows = PairedPack(runs).advance(states, 4)
        >>> [(run.step(state), len(frame)) for run, state, frame in zip(runs, states, rows)]
        [(4, 8), (4, 8)]
    """

    def __init__(self, runs: Sequence[PairedRun]) -> None:
        if not runs:
            raise ValueError("runs must hold at least one run")
        first = runs[0]
        for run in runs[1:]:
            if run.program is not first.program or run.fingerprint != first.fingerprint:
                raise ValueError("runs of a pack must share problem, data, parameters and options")
            if str(jax.tree.structure(run.rule)) != str(jax.tree.structure(first.rule)):
                raise ValueError(
                    f"runs of a pack must have one kind of rule, got {first.rule} and {run.rule}"
                )
        self.runs = tuple(runs)
        self._program = first.program
        with PairedRun.mode():
            self._rules = _stack([run.traced_rule() for run in self.runs])

    def advance(
        self, states: Sequence[PairedState], num_steps: int
    ) -> tuple[list[PairedState], list[pd.DataFrame]]:
        """Make up to `num_steps` more optimizer steps in every run; return states and their rows.

        Members that have ended stay as they are. States come back as NumPy arrays; see
        `PairedRun.advance` for the rows. All members get as many tracked directions as the one that
        needs most.

        Raises `ValueError` where every run has ended, and what `check` raises for any of them.
        """
        states, frames = self.compute(states, num_steps)
        for frame in frames:
            self.check(frame)
        return states, frames

    def check(self, rows: pd.DataFrame) -> None:
        """Raise `ValueError` for rows of one run that can't be right: a loss that is no function.

        For callers of `compute`, where one run's mistake is not to be another's.
        """
        check_one_loss(rows, self.runs[0].options.dtype)

    def compute(
        self, states: Sequence[PairedState], num_steps: int
    ) -> tuple[list[PairedState], list[pd.DataFrame]]:
        """Make steps as `advance` does, but check no rows.

        Raises `ValueError` where every run has ended.
        """
        integer("num_steps", num_steps, 1)
        states = list(states)
        if all(run.is_done(state) for run, state in zip(self.runs, states, strict=True)):
            raise ValueError("states must hold one that has not ended")
        stops = [min(int(s.step) + num_steps, int(s.total)) for s in states]
        frames: list[list[pd.DataFrame]] = [[] for _ in states]

        def live(i: int) -> bool:
            s, stop = states[i], stops[i]
            return int(s.outcome) == RUNNING and (int(s.step) < stop or stop == int(s.total))

        with PairedRun.mode():
            needed = max(s.num_eigs for s in states)
            while any(live(i) for i in range(len(states))):
                states = [self._program.grow(s, needed) for s in states]
                chunk = jax.device_get(
                    self._program.advance_pack(
                        self._rules,
                        self.runs[0].inputs,
                        _stack(states),
                        jnp.asarray(stops, jnp.int32),
                    )
                )
                states = [_member(chunk.state, i) for i in range(len(states))]
                for i in range(len(states)):
                    rows = {name: _member(row, i) for name, row in chunk.rows.items()}
                    frames[i].append(steps_frame(rows, int(chunk.num_rows[i])))
                if np.any(chunk.needs_more_eigs):
                    needed = self.runs[0].options.grown(needed, states[0].start.size)
        return states, [as_one_frame(f) for f in frames]

    def memory_bytes(self, states: Sequence[PairedState]) -> int:
        """Return what the compiled program takes on the device, by the compiler's estimate."""
        with PairedRun.mode():
            return self._program.pack_memory(self._rules, self.runs[0].inputs, _stack(list(states)))


def choose_pack_size(
    runs: Sequence[PairedRun],
    states: Sequence[PairedState],
    *,
    memory_limit: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Return how many runs to pack: the size with the most member-steps a second that fits.

    Sizes (`SIZES`, and the number of runs unless it is larger than these) are tried in turn on a
    few steps that are thrown away, until one does not fit into memory, can't be carried out or is
    no longer faster than the one before.

    Args:
        runs: runs to carry out, as for `PairedPack`.
        states: their states.
        memory_limit: bytes of the device; by default what the device says, or no limit.
        clock: seconds.

    Raises `ValueError` for runs that can't be packed, and what a run raises that is carried out by
    itself.
    """
    limit = _device_memory() if memory_limit is None else memory_limit
    best, best_rate = 1, 0.0
    for size in [s for s in SIZES if s < len(runs)] + [min(len(runs), SIZES[-1])]:
        pack, members = PairedPack(runs[:size]), list(states[:size])
        try:
            if limit is not None and pack.memory_bytes(members) > MEMORY_SHARE * limit:
                break
            pack.compute(members, PROBE_STEPS)  # compiles, and grows k where that is due
            begin = clock()
            pack.compute(members, PROBE_STEPS)
        except Exception:
            if size == 1:
                raise
            break  # out of memory, mostly: the estimate was too low
        rate = size * PROBE_STEPS / max(clock() - begin, 1e-9)
        if rate < LEAST_GAIN * best_rate:
            break
        best, best_rate = size, rate
    return best


def _device_memory() -> int | None:
    """Return the bytes that the first device may use, or None where it does not say."""
    stats = jax.devices()[0].memory_stats()
    return None if stats is None else stats.get("bytes_limit")


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *trees)


def _member(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)
