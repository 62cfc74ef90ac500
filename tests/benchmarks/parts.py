"""Where the time of a central step goes: each part measured apart, times how often it occurs."""

from __future__ import annotations

from typing import Any
from unittest import mock

import jax

from cflows_ray.flows import spectrum
from cflows_ray.linalg.eigen import EigenResult, top_eigenpairs
from tests.benchmarks.central_steps import At, CentralFlow
from tests.benchmarks.measuring import Clock, repeat, table
from tests.benchmarks.unit_costs import DerivativeMeter, eigensolver_costs, sdcp_cost

STEPS = 4


def count_rounds(flow: CentralFlow, at: At, num_steps: int) -> tuple[int, int]:
    """Return calls of the eigensolver and the rounds in them, over so many steps."""
    seen = {"calls": 0, "rounds": 0}

    def note(what: str) -> None:
        seen[what] += 1

    def counted(matvecs: Any, guess: Any, **settings: Any) -> EigenResult:
        def noted(rows: Any, count: Any) -> Any:
            jax.debug.callback(lambda: note("rounds"))
            return matvecs(rows, count)

        jax.debug.callback(lambda: note("calls"))
        return top_eigenpairs(noted, guess, **settings)

    twin = flow.twin()
    with mock.patch.object(spectrum, "top_eigenpairs", counted):
        twin.call(at, num_steps)
    jax.effects_barrier()
    return seen["calls"], seen["rounds"]


def parts_table(flow: CentralFlow, at: At, repetitions: int, clock: Clock = "wall") -> str:
    """Return the table of a central step's parts at a state."""
    after = flow.advance(at, STEPS)
    if after.num_eigs != at.num_eigs:  # k grew: measure where it has settled
        at, after = after, flow.advance(after, STEPS)
    counts = (after.counts - at.counts) / STEPS
    k, c = at.num_eigs, after.num_critical
    step_s = repeat(lambda: flow.call(at, STEPS), repetitions).best_s(clock) / STEPS
    one = DerivativeMeter(flow.flat, k).costs(at.state.params, repetitions, clock)
    eigen = eigensolver_costs(flow.flat.params.size, k, repetitions, clock)
    calls, rounds = (n / STEPS for n in count_rounds(flow, at, STEPS))
    solved = counts[2] / max(c * (c + 1) / 2, 1)
    parts = [
        ("linearized gradients", counts[0], one.linearization_s),
        ("products", counts[1], one.product_s),
        ("third derivatives", counts[2], one.third_s),
        ("complementarity problems", solved, sdcp_cost(k, max(c, 1), repetitions, clock)),
        ("eigensolver's algebra: calls", calls, eigen.call_s),
        ("eigensolver's algebra: passes", rounds - calls, eigen.pass_s),
    ]
    rows: list[tuple[Any, ...]] = [
        (name, float(n), 1e3 * s, 1e3 * n * s, f"{n * s / step_s:.0%}") for name, n, s in parts
    ]
    rest = step_s - sum(n * s for _, n, s in parts)
    rows.append(("everything else", "", "", 1e3 * rest, f"{rest / step_s:.0%}"))
    rows.append(("whole step", "", "", 1e3 * step_s, "100%"))
    header = "part | a step | ms each | ms a step | share"
    return (
        f"d = {flow.flat.params.size:,}, k = {k}, {c} critical; gradient "
        f"{1e3 * one.gradient_s:.3g} ms ({clock} clock)\n\n{table(header, rows)}"
    )
