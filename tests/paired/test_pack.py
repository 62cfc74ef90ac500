"""Packs: the numbers of single runs, members that do not disturb each other, a measured size."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from cflows_ray import GradientDescent, PairedOptions, PairedPack, PairedRun, Problem, RMSProp
from cflows_ray.paired.pack import choose_pack_size

COMPARED = ("train_loss", "train_loss_predicted", "effective_sharpness", "sigma_trace")
START = {"x": np.full(3, 0.1), "y": np.array([3.8, 3.6, 3.3])}
C = 0.05


def three_saddles(params, scale):
    """Σ_i ½ y_i x_i² - c y_i: each y_i rises until it is critical."""
    x, y = params["x"], params["y"]
    return scale * jnp.sum(0.5 * y * x**2 - C * y)


PROBLEM = Problem(three_saddles, np.ones(()))


def start(lr=0.5, seed=0, steps=40, num_eigs=4, problem=PROBLEM, scheme="adaptive"):
    options = PairedOptions(num_eigs=num_eigs, dtype="float64", scheme=scheme)
    run = PairedRun(problem, GradientDescent(lr), options)
    params = jax.tree.map(lambda x: x * (1 + 0.01 * seed), START)
    return run, run.start(params, steps=steps, warmup=2, seed=seed)


def as_table(frames):
    return pd.concat([f for f in frames if len(f)], ignore_index=True)


def carry_out(members, num_eigs, scheme):
    """Return final states, tables and outcomes of a pack."""
    started = (start(*member, num_eigs, scheme=scheme) for member in members)
    runs, states = zip(*started, strict=True)
    pack, states, frames = PairedPack(runs), list(states), [[] for _ in runs]
    while not all(run.is_done(s) for run, s in zip(runs, states, strict=True)):
        states, new = pack.advance(states, 25)
        for known, frame in zip(frames, new, strict=True):
            known.append(frame)
    outcomes = [run.outcome(state) for run, state in zip(runs, states, strict=True)]
    return states, [as_table(f) for f in frames], outcomes


def carry_out_alone(member, num_eigs, scheme):
    run, state = start(*member, num_eigs, scheme=scheme)
    frames = []
    while not run.is_done(state):
        state, frame = run.advance(state, 25)
        frames.append(frame)
    return as_table(frames), run.outcome(state)


# learning rate, seed, steps: the edge with several critical directions, a shorter run, a divergence
MEMBERS = [(0.5, 0, 40), (0.45, 1, 40), (0.5, 2, 30), (5.0, 0, 40)]


@pytest.mark.slow
@pytest.mark.parametrize(("num_eigs", "scheme"), [(4, "euler"), (2, "adaptive")])
def test_members_are_single_runs_and_do_not_disturb_each_other(num_eigs, scheme):
    singles = [carry_out_alone(member, 4, scheme) for member in MEMBERS]
    states, tables, outcomes = carry_out(MEMBERS, num_eigs, scheme)
    assert [status for status, _ in outcomes] == ["finished"] * 3 + ["diverged"]
    assert tables[0].num_critical.max() >= 2
    assert all(state.num_eigs == 4 for state in states)  # k grew where it was 2
    for table, outcome, (alone, alone_outcome) in zip(tables, outcomes, singles, strict=True):
        assert outcome == alone_outcome
        labels = ["step", "process", "status", "num_critical"]
        pd.testing.assert_frame_equal(table[labels], alone[labels])
        # a basis that grew has other random rows: eigenpairs agree to their tolerance
        rtol = 1e-9 if num_eigs == 4 else 1e-5
        for column in COMPARED:
            np.testing.assert_allclose(
                table[column].astype(float), alone[column].astype(float),
                rtol=rtol, atol=rtol, err_msg=column,
            )  # fmt: skip


def test_what_cannot_be_packed_is_refused():
    run, state = start()
    other = Problem(three_saddles, np.full((), 2.0))
    with pytest.raises(ValueError, match="must share problem"):
        PairedPack([run, start(problem=other)[0]])
    different = PairedRun(PROBLEM, RMSProp(0.01), run.options)
    different.start(START, steps=5, warmup=0, seed=0)
    with pytest.raises(ValueError, match="one kind of rule"):
        PairedPack([run, different])
    with pytest.raises(ValueError, match="at least one run"):
        PairedPack([])
    ended = state._replace(outcome=jnp.ones((), jnp.int32))
    with pytest.raises(ValueError, match="one that has not ended"):
        PairedPack([run]).advance([ended], 5)


def test_a_loss_with_two_values_at_one_point_is_told_of_each_member_by_itself(monkeypatch):
    """`advance` raises; after `compute` the caller can tell the members apart."""

    def rows(stable):
        return pd.DataFrame(
            {
                "step": [0, 0],
                "process": ["discrete", "stable"],
                "train_loss": [1.0, stable],
                "distance_to_discrete": [np.nan, 0.0],
            }
        )

    run, state = start()
    pack = PairedPack([run, run])
    monkeypatch.setattr(pack, "compute", lambda states, _: (states, [rows(1.0), rows(2.0)]))
    states, frames = pack.compute([state, state], 3)
    pack.check(frames[0])
    message = r"^loss_fn must have one value at one point, got 1 \(discrete\) and 2 \(stable\)"
    for call in (lambda: pack.check(frames[1]), lambda: pack.advance(states, 3)):
        with pytest.raises(ValueError, match=message):
            call()


class FakePacks:
    """Stands in for `PairedPack`: a program of known size and speed."""

    bytes_each, seconds = 10, {}

    def __init__(self, runs):
        self.size = len(runs)

    def memory_bytes(self, states):
        return self.bytes_each * len(states)

    def compute(self, states, num_steps):  # noqa: ARG002
        FakePacks.now += FakePacks.seconds[self.size]
        return states, []


@pytest.mark.parametrize("error", [jax.errors.JaxRuntimeError, MemoryError, ZeroDivisionError])
def test_a_pack_that_does_not_fit_after_all_is_not_chosen(monkeypatch, error):
    class TooLarge(FakePacks):
        def compute(self, states, num_steps):
            if self.size > 4:
                raise error("RESOURCE_EXHAUSTED")
            return super().compute(states, num_steps)

    monkeypatch.setattr("cflows_ray.paired.pack.PairedPack", TooLarge)
    FakePacks.seconds, FakePacks.now = dict.fromkeys((1, 4, 16, 64), 1), 0.0
    assert choose_pack_size([None] * 64, [None] * 64, clock=lambda: FakePacks.now) == 4


def test_one_run_by_itself_that_fails_says_so(monkeypatch):
    class Broken(FakePacks):
        def compute(self, states, num_steps):  # noqa: ARG002
            raise ZeroDivisionError

    monkeypatch.setattr("cflows_ray.paired.pack.PairedPack", Broken)
    with pytest.raises(ZeroDivisionError):
        choose_pack_size([None] * 4, [None] * 4)


@pytest.mark.parametrize(
    ("seconds", "memory", "runs", "expected"),
    [
        ({1: 1, 4: 1, 16: 1, 64: 1}, None, 64, 64),
        ({1: 1, 4: 1, 16: 1, 63: 1}, None, 63, 63),
        ({1: 1, 4: 1, 15: 5}, None, 15, 4),
        ({1: 1, 2: 1}, None, 2, 2),
        ({1: 1, 4: 1, 16: 1, 64: 1}, None, 100, 64),
        ({1: 1, 4: 1, 16: 3.9, 64: 10}, None, 64, 4),
        ({1: 1, 4: 4, 16: 1, 64: 1}, None, 64, 1),
        ({1: 1, 4: 1, 16: 1, 64: 1}, 201, 64, 16),
        ({1: 1, 4: 1, 16: 1, 64: 1}, 199, 64, 4),
        ({1: 1, 4: 1, 16: 1, 64: 1}, 5, 64, 1),
    ],
)
def test_size_is_chosen_from_memory_and_measured_speed(
    monkeypatch, seconds, memory, runs, expected
):
    monkeypatch.setattr("cflows_ray.paired.pack.PairedPack", FakePacks)
    FakePacks.seconds, FakePacks.now = seconds, 0.0
    found = choose_pack_size(
        [None] * runs, [None] * runs, memory_limit=memory, clock=lambda: FakePacks.now
    )
    assert found == expected
