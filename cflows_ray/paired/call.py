"""`run_paired`: a paired run in one call, for people who bring their own loss. No Ray here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import pandas as pd
from jaxtyping import Array, PyTree

from cflows_ray.checks import boolean
from cflows_ray.paired.options import PairedOptions
from cflows_ray.paired.progress import ChunkLength, ProgressLine, is_wanted
from cflows_ray.paired.run import PairedRun, as_one_frame
from cflows_ray.paired.state import PairedState
from cflows_ray.problem import Problem
from cflows_ray.rules import UpdateRule

INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class PairedResult:
    """What `run_paired` returns.

    Attributes:
        steps: the `steps` table of `cflows_ray.schema` without `run_id`.
        final: parameters of every process at the last step, in the structure of `params`.
        status: "finished", "diverged", "undefined" (a derivative of the loss is not finite at the
            start, and something came to nothing for it) or "interrupted".
        status_detail: why, which flows stopped, and why numbers may mean little (a loss that is not
            smooth, rows that are unconverged); None if there is nothing to say.
        doubts: how many rows may mean nothing, by process and reason, or None; which rows, says
            the column `doubt`.
        wall_s: seconds in all, of which `compile_s` were spent compiling.
    """

    steps: pd.DataFrame = field(repr=False)
    final: dict[str, PyTree] = field(repr=False)
    status: str
    status_detail: str | None
    doubts: str | None
    wall_s: float
    compile_s: float


def run_paired(
    loss_fn: Callable[..., Array],
    params: PyTree,
    rule: UpdateRule,
    *,
    data: PyTree | None = None,
    steps: int = 1000,
    flows: Sequence[str] = ("stable", "central"),
    warmup: int = 0,
    num_eigs: int = 4,
    substeps: int | None = None,
    scheme: str | None = None,
    tolerance: float = 1e-2,
    seed: int = 0,
    dtype: str = "float32",
    record_every: int = 1,
    target_windows: Sequence[str | int] = (),
    restart_every: int = 0,
    progress: bool = True,
) -> PairedResult:
    """Run an optimizer and its flows side by side from one point.

    Args:
        loss_fn: `loss_fn(params) -> scalar`, three times differentiable; with `data`,
            `loss_fn(params, data)`. A pure function; it is traced at each call, so that captured
            data count as they are then. A second call that computes the same, whatever learning
            rate, β₂, ε, seed or values of captured arrays, compiles nothing (but for arrays that a
            jitted function inside the loss has captured).
        params: any pytree of floating-point arrays.
        rule: an update rule of `cflows_ray`, such as `Adam(lr=1e-3)`, or `from_optax(...)`, which
            has midpoints only.
        data: pytree of arrays given to `loss_fn`, if any.
        steps: optimizer steps after the common starting point.
        flows: processes beside the optimizer: "stable", "central", "midpoint", and the rivals of
            docs/rivals-theory.md: "alternating", "edge", "rod", "covariance", "corrected",
            "central_unforced", "persistence", with their default settings (others: `PairedRun`).
        warmup: optimizer steps before the common starting point.
        num_eigs: tracked directions at the start; their number doubles, up to 64, so that every
            effective eigenvalue of the central flow above 1.5 is tracked, and of the optimizer
            while its loss is not above the starting one.
        substeps: fixed substeps of the central flow per optimizer step; 4 where a scheme needs
            them and they are left out.
        scheme: "adaptive", of second order with as many substeps as it takes, "euler", of first
            order, or "extrapolated", of second order (even `substeps`). Left out it is "adaptive",
            and "euler" where `substeps` are given.
        tolerance: of "adaptive": error that a substep may add, over the way that it makes.
        seed: of the eigensolver's random starting block.
        dtype: "float32" or "float64".
        record_every: optimizer steps between rows.
        target_windows: windows over which flows are compared in the mean, of 5, 20, 50 and "loop".
        restart_every: flows begin anew at the optimizer after so many steps, and the column
            `start_step` says when; 0 for never.
        progress: whether a call of more than a few seconds says on standard error where it is.

    Ctrl-C ends the call with the status "interrupted" and all rows up to the last whole chunk, of
    about a second; before the first one, it raises `KeyboardInterrupt`.

    Raises `ValueError` naming the argument that cannot be used, before anything is compiled. What
    depends on the data (divergence, a stopped flow) is a status in the result.

    Example:
        >>> import jax.numpy as jnp
        >>> from cflows_ray import run_paired, GradientDescent
        >>> result = run_paired(
        ...     lambda p: 0.5 * p["y"] * p["x"] ** 2 - 0.005 * p["y"],
        ...     {"x": jnp.array(0.1), "y": jnp.array(1.98)},
        ...     GradientDescent(lr=1.0), steps=100,
        ... )
        >>> central = result.steps[result.steps.process == "central"].iloc[-1]
        >>> round(float(central.sigma_trace), 4)  # 2c, here c = 0.005
        0.01
    """
    if not callable(loss_fn):
        raise ValueError(f"loss_fn must be callable, got {loss_fn!r}")
    begin = time.perf_counter()
    boolean("progress", progress)
    options = PairedOptions(
        flows=(flows,) if isinstance(flows, str) else tuple(flows),
        num_eigs=num_eigs,
        substeps=cast("int", substeps),
        scheme=cast("str", scheme),
        tolerance=tolerance,
        dtype=dtype,
        record_every=record_every,
        target_windows=cast("tuple[str, ...]", target_windows),
        restart_every=restart_every,
    )
    problem = Problem(loss_fn, data) if data is not None else Problem(lambda p, _: loss_fn(p))
    run = PairedRun(problem, rule, options)
    state = run.start(params, steps=steps, warmup=warmup, seed=seed)
    line = ProgressLine(steps) if is_wanted(progress) else None
    state, rows, is_interrupted = _carry_out(run, state, line)
    status, detail = run.outcome(state)
    if is_interrupted:
        words = f"interrupted after step {run.step(state) - 1} of {steps}"
        status, detail = INTERRUPTED, "; ".join(filter(None, (words, detail)))
    wall_s = time.perf_counter() - begin
    return PairedResult(
        rows, run.final(state), status, detail, run.doubts(state), wall_s, run.compile_s
    )


def _carry_out(
    run: PairedRun, state: PairedState, line: ProgressLine | None
) -> tuple[PairedState, pd.DataFrame, bool]:
    """Advance to the end, or to where a person interrupts: the last whole chunk, and its rows.

    Raises `KeyboardInterrupt` where there is no row yet.
    """
    # state and rows are put down together, so that an interrupt never finds one without the other
    done: tuple[PairedState, tuple[pd.DataFrame, ...]] = state, ()
    length = ChunkLength()
    try:
        while not run.is_done(done[0]):
            begin, compiled = time.perf_counter(), run.compile_s
            after, rows = run.advance(done[0], length.steps)
            done = after, (*done[1], rows)
            length.took(time.perf_counter() - begin - (run.compile_s - compiled))
            if line is not None:
                line.show(run.step(after), rows)
    except KeyboardInterrupt:
        if not done[1]:
            raise
        return done[0], as_one_frame(done[1]), True
    finally:
        if line is not None:
            line.clear()
    return done[0], as_one_frame(done[1]), False
