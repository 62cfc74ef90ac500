"""How many directions a paired run tracks: growth of k, its limit, and where it does not grow."""

import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray import GradientDescent, PairedOptions, PairedRun, Problem, run_paired
from tests.networks import NETWORKS

LOSS, PARAMS = NETWORKS["tanh_regression"]()


def test_k_grows_and_the_answer_is_that_of_a_large_k():
    """Several directions become critical; starting with one tracked direction changes nothing."""
    settings = {"steps": 200, "warmup": 5, "flows": ("central",), "dtype": "float64", "substeps": 4}
    grown = run_paired(LOSS, PARAMS, GradientDescent(0.8), num_eigs=1, **settings)
    large = run_paired(LOSS, PARAMS, GradientDescent(0.8), num_eigs=4, **settings)
    ours, theirs = (r.steps[r.steps.process == "central"] for r in (grown, large))
    assert ours.step.tolist() == list(range(201))  # redone steps appear once
    assert ours.num_critical.max() >= 2
    assert len(ours.effective_eigs.iloc[-1]) > 1
    assert ours.effective_eigs.map(np.min).le(1.5).all()
    np.testing.assert_array_equal(ours.num_critical, theirs.num_critical)
    np.testing.assert_allclose(grown.final["central"], large.final["central"], rtol=1e-5, atol=1e-7)


def coupled(w):
    """Return a bowl with nearly the same curvature in every direction."""
    return 0.5 * jnp.sum(w**2) * (1 + 0.1 * jnp.mean(jnp.cos(w)))


@pytest.mark.parametrize(("most", "status"), [(2, "eig_unconverged"), (4, "ok")])
def test_k_grows_up_to_a_limit_and_rows_say_where_more_was_needed(most, status):
    """All four effective eigenvalues lie between 1.5 and 2."""
    options = PairedOptions(flows=("central",), num_eigs=2, max_eigs=most)
    run = PairedRun(Problem(lambda w, _: coupled(w)), GradientDescent(1.6), options)
    state, rows = run.advance(run.start(np.full(4, 0.1), steps=3, warmup=0, seed=0), 3)
    assert state.processes["discrete"].own.basis.shape == (most, 4)
    assert set(rows.status) == {status}


def test_no_direction_is_added_for_a_run_that_diverged_before_the_start():
    options = PairedOptions(flows=("stable", "central"), num_eigs=1)
    run = PairedRun(Problem(lambda w, _: jnp.sum(w**4) + coupled(w)), GradientDescent(2.5), options)
    state, rows = run.advance(run.start(np.full(12, 1.0), steps=3, warmup=2, seed=0), 3)
    assert run.outcome(state)[0] == "diverged"
    assert rows[rows.process == "discrete"].status.tolist() == ["diverged"]
    assert rows.effective_sharpness.iloc[0] > 1.5
    assert state.num_eigs == 1
