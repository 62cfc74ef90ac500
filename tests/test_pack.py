"""Packs: the numbers of single runs, members that do not disturb each other, a measured size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray import GradientDescent, PairedOptions, PairedPack, PairedRun, Problem, RMSProp
from cflows_ray.pack import choose_pack_size
from tests.networks import NETWORKS

OPTIONS = PairedOptions(num_eigs=2, dtype="float64")
COMPARED = ("train_loss", "train_loss_predicted", "effective_sharpness", "sigma_trace")


@pytest.fixture(scope="module")
def problem():
    loss, _ = NETWORKS["tanh_regression"]()
    return Problem(lambda params, scale: scale * loss(params), jnp.ones(()))


def start(problem, lr, seed=0, steps=60, warmup=5):
    run = PairedRun(problem, GradientDescent(lr), OPTIONS)
    params = NETWORKS["tanh_regression"]()[1]
    params = jax.tree.map(lambda x: x * (1 + 0.01 * seed), params)
    return run, run.start(params, steps=steps, warmup=warmup, seed=seed)


def finish(run, state):
    frames = []
    while not run.is_done(state):
        state, frame = run.advance(state, 25)
        frames.append(frame)
    return state, frames


@pytest.mark.slow
def test_members_are_single_runs_and_do_not_disturb_each_other(problem):
    # the edge with one and two critical directions, another seed, a shorter run, a divergence
    members = [(0.8, 0, 60), (0.7, 1, 60), (0.8, 2, 30), (30.0, 0, 60)]
    runs, states = zip(*(start(problem, lr, s, n) for lr, s, n in members), strict=True)
    singles = [finish(run, state) for run, state in zip(runs, states, strict=True)]
    pack, packed, frames = PairedPack(runs), list(states), [[] for _ in runs]
    while not all(run.is_done(s) for run, s in zip(runs, packed, strict=True)):
        packed, new = pack.advance(packed, 25)
        for known, frame in zip(frames, new, strict=True):
            known.append(frame)
    outcomes = [run.outcome(s)[0] for run, s in zip(runs, packed, strict=True)]
    assert outcomes == ["finished", "finished", "finished", "diverged"]
    for run, state, many, (single, alone) in zip(runs, packed, frames, singles, strict=True):
        ours, theirs = (as_table(x) for x in (many, alone))
        assert list(ours.columns) == list(theirs.columns)
        assert ours[["step", "process", "status"]].equals(theirs[["step", "process", "status"]])
        assert run.outcome(state) == run.outcome(single)
        for column in COMPARED:
            np.testing.assert_allclose(
                ours[column].astype(float), theirs[column].astype(float),
                rtol=1e-6, atol=1e-9, err_msg=column,
            )  # fmt: skip
    central = as_table(frames[0])
    assert central.num_critical[central.process == "central"].max() >= 1
    assert packed[0].discrete.basis.shape[0] > OPTIONS.num_eigs  # k grew


def as_table(frames):
    import pandas as pd

    return pd.concat([f for f in frames if len(f)], ignore_index=True)


def test_what_cannot_be_packed_is_refused(problem):
    run, state = start(problem, 0.5)
    other = Problem(problem.loss, jnp.full((), 2.0))
    with pytest.raises(ValueError, match="must share problem"):
        PairedPack([run, start(other, 0.5)[0]])
    different = PairedRun(problem, RMSProp(0.01), OPTIONS)
    different.start(NETWORKS["tanh_regression"]()[1], steps=5, warmup=0, seed=0)
    with pytest.raises(ValueError, match="one kind of rule"):
        PairedPack([run, different])
    with pytest.raises(ValueError, match="at least one run"):
        PairedPack([])
    ended = state._replace(outcome=jnp.ones((), jnp.int32))
    with pytest.raises(ValueError, match="one that has not ended"):
        PairedPack([run]).advance([ended], 5)


class FakePacks:
    """Stands in for `PairedPack`: a program of known size and speed."""

    bytes_each, seconds = 10, {}

    def __init__(self, runs):
        self.size = len(runs)

    def memory_bytes(self, states):
        return self.bytes_each * len(states)

    def advance(self, states, num_steps):  # noqa: ARG002
        FakePacks.now += FakePacks.seconds[self.size]
        return states, []


@pytest.mark.parametrize(
    ("seconds", "memory", "runs", "expected"),
    [
        ({1: 1, 4: 1, 16: 1, 64: 1}, None, 64, 64),
        ({1: 1, 4: 1, 16: 1, 64: 1}, None, 63, 16),
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
    monkeypatch.setattr("cflows_ray.pack.PairedPack", FakePacks)
    FakePacks.seconds, FakePacks.now = seconds, 0.0
    found = choose_pack_size(
        [None] * runs, [None] * runs, memory_limit=memory, clock=lambda: FakePacks.now
    )
    assert found == expected
