"""What there is to say of a run, in words: how it ended, and why its numbers may mean little.

All of it follows from the run's state, so that a run that was resumed says what one in a go says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cflows_ray.curvature import Loss, float_mode
from cflows_ray.paired.differences import ORDERS, Checked, contradictions, first_not_finite
from cflows_ray.paired.doubts import worth_a_remark
from cflows_ray.paired.program import Inputs, PairedProgram
from cflows_ray.paired.smoothness import PIECES, has_jump
from cflows_ray.paired.state import ENDINGS, RUN_DIVERGED, RUNNING, PairedState
from cflows_ray.schema import StepStatus

ENDED = {int(s): s.word for s in ENDINGS}
# Lines on which jumps of the loss are looked for reach so far, relative to the parameters.
REACH = 0.1
RANDOM_LINES = 2
# A remark is no reason to lose a run: third derivatives may be undefined, or exceed the memory.
LOOK_FAILED = (TypeError, ValueError, NotImplementedError, jax.errors.JaxRuntimeError)


def check_derivatives(
    program: PairedProgram,
    inputs: Inputs,
    start: Float[np.ndarray, " d"],
    initial: Float[np.ndarray, " d"],
    epsilon: float,
) -> Checked:
    """Look whether the loss's derivatives are finite where a run begins, and differences agree.

    Where they can't be looked at, nothing is found.

    Args:
        program: the compiled program of the run.
        inputs: its data.
        start: the common starting point.
        initial: parameters before the warm-up: looked at where that has led nowhere.
        epsilon: distance from 1 to the next number of the type that the loss computes in.
    """
    u = _direction(start)
    length = np.linalg.norm(initial) / np.sqrt(initial.size)
    u = (u * (length or 1.0)).astype(start.dtype)

    def at(point: Float[np.ndarray, " d"]) -> list[np.ndarray]:
        found = program.derivatives(inputs, jnp.asarray(point), jnp.asarray(u))
        return [np.asarray(x) for x in jax.device_get(found)]

    try:
        here = at(start)
        broken = first_not_finite(here if np.isfinite(here[0]) else at(initial))
        gaps = contradictions(lambda t: at(start + np.asarray(t, start.dtype) * u), u, epsilon)
    except LOOK_FAILED:
        return Checked.nothing()
    return Checked(jnp.asarray(broken, jnp.int32), jnp.asarray(gaps, jnp.float64))


def is_undefined(state: PairedState) -> bool:
    """Say whether a run or a flow came to nothing for a derivative that the loss has not."""
    return int(state.checked.not_finite) > 0 and _has_diverged(state)


def remarks_on(
    program: PairedProgram,
    inputs: Inputs,
    state: PairedState,
    initial: Float[np.ndarray, " d"] | None,
) -> list[str]:
    """Return remarks, each a few words without a full stop.

    Args:
        program: the compiled program of the run.
        inputs: its data.
        state: where it stands.
        initial: parameters before the warm-up, where they are known.
    """
    found = list(_endings(state, program.restart_every))
    causes = []
    try:
        if int(state.outcome) != RUNNING:
            causes = _not_finite(program, inputs, state, initial)
            causes += _not_smooth(program, inputs, state)
    except LOOK_FAILED as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        causes = [f"the loss's derivatives could not be looked at: {line}"]
    found += causes or _doubtful(state)
    found += [
        f"finite differences contradict the {name} at the start, by {_percent(gap)}"
        for name, gap in zip(ORDERS, state.checked.gaps, strict=True)
        if gap > 0
    ]
    found += worth_a_remark(state.processes)
    if program.most_eigs <= state.num_eigs < state.start.size and _unconverged(state):
        found.append(f"the limit of {program.most_eigs} tracked directions was reached")
    return found


def _endings(state: PairedState, restart_every: int) -> Iterator[str]:
    """Say where the run diverged, and which flows ended early, in how many of their forecasts."""
    step = int(state.step)
    if int(state.outcome) == RUN_DIVERGED:
        limit = float(state.limits.diverged)
        what = "loss not finite" + (f" or above {limit:.6g}" if np.isfinite(limit) else "")
        where = f"at step {step}"
        if step == 0:
            warm = bool(state.optimizer.has_previous)
            where = "during the warm-up" if warm else "at the starting point"
        yield f"{what} {where}"
    for name, process in state.processes.items():
        now = int(process.status) if step > 0 else int(StepStatus.OK)
        if not restart_every:
            if now in ENDED:
                yield f"{name} flow {ENDED[now]}"
            continue
        of = int(state.start_step) // restart_every + 1
        for (status, word), before in zip(ENDED.items(), np.asarray(process.ends), strict=True):
            number = int(before) + (now == status)
            if number:
                yield f"{name} flow {word} in {number} of {of} forecasts"


def _not_finite(
    program: PairedProgram,
    inputs: Inputs,
    state: PairedState,
    initial: Float[np.ndarray, " d"] | None,
) -> list[str]:
    """Say which derivative is not finite, of what, where; only where something diverged."""
    if not _has_diverged(state) and not _mostly_unconverged(state):
        return []
    for where, point in _points(state, initial):
        what = _first_not_finite(program, inputs, point)
        if what:
            return [what.format(where=where)]
    return []


def find_for_debugger(
    loss: Loss, state: PairedState, initial: Float[np.ndarray, " d"] | None
) -> None:
    """Compute the loss and its derivatives, operation by operation, where a run diverged.

    With `jax_debug_nans` or `jax_debug_infs` set, JAX then raises `FloatingPointError` with the
    line of the loss that made the first such number.

    Args:
        loss: the user's own function, not its trace, of flat parameters.
        state: where the run stands.
        initial: parameters before the warm-up, where they are known.
    """
    if not _has_diverged(state):
        return
    points = [point for _, point in _points(state, initial)]
    for point in (*points, np.asarray(jax.device_get(state.optimizer.params))):
        if not np.all(np.isfinite(point)):
            continue
        with float_mode(point.dtype):
            at, u = jnp.asarray(point), jnp.asarray(_direction(point))
            first = _slope(loss, u)
            second = _slope(first, u)
            for function in (loss, first, jax.grad(loss), second, _slope(second, u)):
                # forwards first: a backward pass has left the user's code; some have none forwards
                with contextlib.suppress(TypeError):
                    function(at)


def _slope(function: Loss, u: Float[Array, " d"]) -> Loss:
    return lambda w: jax.jvp(function, (w,), (u,))[1]


def _has_diverged(state: PairedState) -> bool:
    statuses = [int(process.status) for process in state.processes.values()]
    before = [int(p.ends[1]) for p in state.processes.values() if p.ends is not None]
    is_now = int(state.outcome) == RUN_DIVERGED or int(StepStatus.DIVERGED) in statuses
    return is_now or any(before)


def _points(
    state: PairedState, initial: Float[np.ndarray, " d"] | None
) -> list[tuple[str, Float[np.ndarray, " d"]]]:
    """Return where a derivative may not have been finite, in words and as a point."""
    points: list[tuple[str, Any]] = [("at the starting point", state.start)]
    if int(state.warmup) > 0 and initial is not None:
        points.insert(0, ("before the warm-up", initial))
    if int(state.outcome) == RUN_DIVERGED and int(state.step) > 1:
        points.append((f"at step {int(state.step) - 1}", state.optimizer.previous))
    for name, flow in state.processes.items():
        if int(flow.status) == int(StepStatus.DIVERGED):
            points.append((f"where the {name} flow ended", flow.params))
    dtype = state.start.dtype
    return [(where, np.asarray(jax.device_get(point), dtype)) for where, point in points]


def _first_not_finite(
    program: PairedProgram, inputs: Inputs, point: Float[np.ndarray, " d"]
) -> str | None:
    """Say which derivative is the first that is not finite; None if none is, or the loss is not."""
    arguments = jnp.asarray(point), jnp.asarray(_direction(point))
    found = jax.device_get(program.derivatives(inputs, *arguments))
    order = first_not_finite(found)
    if not order:
        return None
    before, name = ("loss", *ORDERS)[order - 1 : order + 1]
    names = program.structure.leaves_where(~np.isfinite(found[order]))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    where = f"with respect to {', '.join(names[:3])}{more} " if names else ""
    return f"the {name} {where}is not finite {{where}} though the {before} is"


def _percent(share: Any) -> str:
    return f"{100.0 * float(share):.0f}%"


def _direction(point: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
    """Return a direction that no derivative is 0 along."""
    return np.random.default_rng(0).standard_normal(point.size).astype(point.dtype)


def _unconverged(state: PairedState) -> bool:
    return any(int(process.rows[1]) > 0 for process in state.processes.values())


def _mostly_unconverged(state: PairedState) -> dict[str, tuple[int, int]]:
    """Return the processes of whose rows more than half are unconverged: how many of how many."""
    found = {}
    for name, process in state.processes.items():
        rows, doubtful = (int(n) for n in process.rows)
        if 2 * doubtful > rows:
            found[name] = doubtful, rows
    return found


def _doubtful(state: PairedState) -> list[str]:
    """Say of which processes most rows are unconverged."""
    return [
        f"{doubtful} of {rows} rows of {name} are unconverged"
        for name, (doubtful, rows) in _mostly_unconverged(state).items()
    ]


def _not_smooth(program: PairedProgram, inputs: Inputs, state: PairedState) -> list[str]:
    """Say that the loss is not smooth, if it is not on a line that the run may have met."""
    suspected = program.suspects
    if not suspected:
        return []
    dtype = state.start.dtype

    def jumps(through: Float[np.ndarray, " d"], u: Float[np.ndarray, " d"]) -> bool:
        def evaluate(places: np.ndarray) -> np.ndarray:
            assert len(places) == PIECES + 1
            args = (jnp.asarray(x, dtype) for x in (through, u, places))
            return np.asarray(program.slopes(inputs, *args), np.float64)

        return has_jump(evaluate, float(jnp.finfo(dtype).eps))

    if any(jumps(through, u) for through, u in _lines(state)):
        return [
            f"the loss is not smooth ({suspected}): its second and third derivatives, and so the "
            "flows, mean little"
        ]
    return []


def _lines(
    state: PairedState,
) -> Iterator[tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]]:
    """Yield points and directions: the optimizer's way, its last step, and random ones."""
    optimizer = state.optimizer
    points = (state.start, optimizer.previous, optimizer.params)
    start, previous, end = (np.asarray(jax.device_get(x), np.float64) for x in points)
    if np.all(np.isfinite(end)) and np.any(end != start):
        yield start, end - start
        # an optimizer that oscillates over a kink may end on the side where it began
        if np.all(np.isfinite(previous)) and np.any(previous != end):
            yield end, end - previous
    size = np.linalg.norm(start) / np.sqrt(start.size)
    if not np.isfinite(size):
        return
    rng = np.random.default_rng(0)
    for _ in range(RANDOM_LINES):
        yield start, REACH * (size or 1.0) * rng.standard_normal(start.size)
