"""Six ways in which a run's numbers mean nothing, and the run that says so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray import GradientDescent, PairedOptions, PairedRun, Problem
from cflows_ray.curvature import derivatives_along, float_mode
from cflows_ray.flows import Counts, Step
from cflows_ray.flows.trust import edge_doubt
from cflows_ray.paired.differences import Checked, contradictions, first_not_finite
from cflows_ray.paired.doubts import Doubts, doubt_of
from cflows_ray.schema import Doubt, StepStatus
from tests.networks import NETWORKS


def made(loss, params, steps, lr=1.0, flows=("stable", "central"), **options):
    """Return a run, its last state and its rows."""
    options = {"num_eigs": 1, "dtype": "float64", **options}
    run = PairedRun(
        Problem(lambda w, _: loss(w)), GradientDescent(lr), PairedOptions(flows=flows, **options)
    )
    state = run.start(np.asarray(params), steps=steps, warmup=0, seed=0)
    state, rows = run.advance(state, steps)
    return run, state, rows


def doubts(rows, process):
    return rows[rows.process == process].set_index("step").doubt.dropna().to_dict()


# Off the edge ---------------------------------------------------------------------------------


def saddle(w):  # sharpness y rises by 0.3 a step without oscillation
    return 0.5 * w[1] * w[0] ** 2 - 0.3 * w[1]


def test_off_the_edge():
    """One substep a step is so long that the edge is passed before it is seen."""

    def loss(w):  # which also moves elsewhere, so that a jump of y's velocity is not its all
        return saddle(w) - w[2]

    run, state, rows = made(loss, [0.0, 1.5, 0.0], 4, substeps=1, flows=("central",))
    sharpness = rows[rows.process == "central"].effective_sharpness.to_numpy()
    np.testing.assert_allclose(sharpness, [1.5, 1.8, 2.1, 2.0, 2.0])
    assert doubts(rows, "central") == {2: "off_the_edge"}
    assert run.doubts(state) == "central: 1 off the edge"
    assert "1 of 5 rows of central are off the edge" in run.outcome(state)[1]


@pytest.mark.parametrize(
    ("sharpness", "critical", "held", "moved", "doubted"),
    [
        (2.03, 1, 0.0, True, True),
        (2.03, 1, 0.0, False, False),  # the start is the optimizer's
        (2.03, 0, 0.0, True, False),
        (2.01, 1, 1.0, True, False),
        (1.97, 1, 1.0, True, True),
        (1.97, 0, 1e-9, True, True),
        (1.97, 1, 0.0, True, False),  # an onset
        (1.99, 1, 1.0, True, False),
        (np.nan, -1, 1.0, True, False),
    ],
)
def test_what_is_off_the_edge(sharpness, critical, held, moved, doubted):
    args = jnp.asarray(sharpness), jnp.asarray(critical), held * jnp.eye(2), jnp.asarray(moved)
    assert int(edge_doubt(*args)) == (Doubt.OFF_THE_EDGE if doubted else 0)


# A stiff stretch ------------------------------------------------------------------------------


def bowl(w):
    return 0.95 * jnp.sum((w - 1.0) ** 2)  # curvature 1.9


def test_stiff_until_it_is_at_rest_also_when_resumed():
    run, state, rows = made(bowl, [0.0], 200, substeps=1, dtype="float32")
    stiff = list(doubts(rows, "central"))
    assert stiff == list(range(1, stiff[-1] + 1))
    assert 60 < stiff[-1] < 190  # rounding is not stiffness
    assert doubts(rows, "stable") == {}
    assert run.doubts(state) == f"central: {len(stiff)} stiff"
    assert f"{len(stiff)} of 201 rows of central are stiff" in run.outcome(state)[1]

    again = run.start(np.zeros(1), steps=200, warmup=0, seed=0)
    again, first = run.advance(again, 7)
    again, second = run.advance(run.from_arrays(run.to_arrays(again)), 200)
    assert run.doubts(again) == run.doubts(state)
    assert [*first.doubt.isna(), *second.doubt.isna()] == list(rows.doubt.isna())


def test_a_substep_that_the_scheme_chooses_is_not_stiff():
    run, state, rows = made(bowl, [0.0], 40)
    assert rows.doubt.isna().all()
    assert run.doubts(state) is None
    assert run.outcome(state) == ("finished", None)


# A leap ---------------------------------------------------------------------------------------


def test_a_leap_of_a_flow_that_explodes():
    """A rounding of 1e-10 where lr S = 50: the rod, which knows only lr S = 0.5, throws it far."""

    def loss(w):
        return 0.25 * w[0] ** 2 + 25.0 * w[1] ** 2

    run, state, rows = made(loss, [1.0, 1e-10], 4, flows=("stable", "rod"))
    assert doubts(rows, "rod") == {1: "leaping", 2: "leaping"}
    assert doubts(rows, "stable") == {}
    assert run.doubts(state) == "rod: 2 leaping"
    assert "2 of 4 rows of rod are leaping" in run.outcome(state)[1]


@pytest.mark.parametrize(
    ("length", "longest", "leaps"),
    [(1.01, 0.1, True), (0.99, 0.1, False), (1.01, 0.0, False), (1e-6, 1e-8, False)],
)
def test_what_is_a_leap(length, longest, leaps):
    """Beyond ten of the optimizer's steps; not at its start, nor within rounding."""
    with float_mode("float64"):
        before = jnp.ones(1, jnp.float32)
        step = Step(None, before + length, {}, {}, jnp.asarray(StepStatus.OK), Counts.of())
        none, most = Doubts.none(before), jnp.asarray(longest)
        found = doubt_of(step, before, none, Counts.of(), Checked.nothing(), most)
    assert int(found) == (Doubt.LEAPING if leaps else 0)


# A solver that missed its tolerance -----------------------------------------------------------


def test_unconverged():
    """Curvatures 18, 17, 2: one tracked direction is too few, and more are not allowed."""
    scale = np.array([9.0, 8.5, 1.0])
    run, state, rows = made(
        lambda w: jnp.sum(scale * w**2),
        np.full(3, 1e-2),
        4,
        lr=0.1,
        flows=("midpoint",),
        max_eigs=1,
    )
    assert run.doubts(state) == "discrete: 5 unconverged"
    assert set(rows[rows.process == "discrete"].doubt) == {"unconverged"}


# A derivative that finite differences contradict ----------------------------------------------


@jax.custom_jvp
def cube(x):
    return x**3


@cube.defjvp
def _(primals, tangents):  # its derivative is right; that derivative's is not
    (x,), (t,) = primals, tangents
    return x**3, 3.0 * x * jax.lax.stop_gradient(x) * t


@jax.custom_jvp
def sixfold(x):
    return 6.0 * x


@sixfold.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    return 6.0 * x, 5.0 * t


@jax.custom_jvp
def square(x):
    return 3.0 * x**2


@square.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    return 3.0 * x**2, sixfold(x) * t


@jax.custom_jvp
def cube_with_a_wrong_third(x):
    return x**3


@cube_with_a_wrong_third.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    return x**3, square(x) * t


def test_a_contradicted_third_derivative():
    """It is of no use below the edge: rows are doubtful from the first critical one on."""

    def loss(w):
        return saddle(w) + 0.1 * cube_with_a_wrong_third(w[2]) + 0.3 * w[2]

    run, state, rows = made(loss, [0.1, 1.7, 1.0], 6, dtype="float32")
    critical = rows[(rows.process == "central") & (rows.num_critical > 0)].step
    found = doubts(rows, "central")
    assert 1 <= min(found) <= min(critical)
    assert set(found.values()) == {"contradicted"}
    assert max(found) == 6
    assert doubts(rows, "stable") == doubts(rows, "discrete") == {}
    words = "finite differences contradict the third derivative at the start, by"
    assert words in run.outcome(state)[1]


def test_a_contradicted_hessian_is_of_all_rows_with_a_sharpness():
    run, state, rows = made(
        lambda w: jnp.sum(cube(w)), np.ones(2), 3, lr=0.01, flows=("midpoint",), dtype="float32"
    )
    assert run.doubts(state) == "discrete: 4 contradicted"
    assert "contradict the Hessian at the start, by 50%" in run.outcome(state)[1]
    assert doubts(rows, "midpoint") == {}


def along(loss, w, u, dtype):
    with float_mode(dtype):
        function = jax.jit(lambda w, u: derivatives_along(loss, w, u))

    def evaluate(t):
        with float_mode(dtype):
            point = np.asarray(w, dtype) + np.asarray(t, dtype) * np.asarray(u, dtype)
            return [np.asarray(x) for x in function(point, np.asarray(u, dtype))]

    return evaluate


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [*NETWORKS, "far away", "rippled", "flat"])
def test_no_false_alarm(name, dtype):
    special = {
        "far away": (lambda w: 1e4 + jnp.sum(jnp.sin(w)), np.ones(3)),
        "rippled": (lambda w: jnp.sum(w**2 + 1e-3 * jnp.cos(1e3 * w)), np.ones(3)),
        "flat": (lambda w: 1.0 + 1e-7 * jnp.sum(w**2), np.ones(3)),
    }
    loss, w = special[name] if name in special else NETWORKS[name]()
    rng = np.random.default_rng(1)
    epsilon = float(np.finfo(dtype).eps)
    for _ in range(3):
        u = rng.standard_normal(w.size) * np.linalg.norm(w) / np.sqrt(w.size)
        found = contradictions(along(loss, w, u, dtype), u, epsilon)
        np.testing.assert_array_equal(found, 0.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_small_contradiction_in_a_network_is_found(dtype):
    """Two per cent of a third derivative are seen in float32 too, and how much is said."""
    loss, w = NETWORKS["tanh_regression"]()
    u = np.random.default_rng(1).standard_normal(w.size) * np.linalg.norm(w) / np.sqrt(w.size)
    right = along(loss, w, u, dtype)

    def evaluate(t):
        *lower, third = right(t)
        return [*lower, 0.98 * third]

    gaps = contradictions(evaluate, u, float(np.finfo(dtype).eps))
    assert gaps[0] == gaps[1] == 0
    assert gaps[2] == pytest.approx(0.02, rel=0.1)


# A third derivative that is not finite --------------------------------------------------------


def test_a_third_derivative_that_is_not_finite_is_the_losss_failure():
    def loss(w):
        return saddle(w) + jnp.abs(w[2]) ** 2.5

    run, state, rows = made(loss, [0.1, 1.95, 0.0], 4, flows=("central",))
    last = rows[rows.process == "central"].iloc[-1]
    assert (last.status, last.doubt) == ("diverged", "not_finite")
    assert run.doubts(state) == "central: 1 not finite"
    status, detail = run.outcome(state)
    assert status == "undefined"
    assert "the third derivative is not finite at the starting point though the Hessian" in detail
    # no flow came to anything: below the edge no third derivative is asked for
    run, state, rows = made(loss, [0.1, 0.5, 0.0], 1, flows=("central",))
    assert run.outcome(state)[0] == "finished"
    assert rows.doubt.isna().all()


def test_a_flow_that_fails_by_itself_is_no_failure_of_the_loss():
    run, state, _ = made(lambda w: jnp.sum(w**2), np.ones(2), 2, flows=("central",))
    flow = state.processes["central"]._replace(status=jnp.asarray(4, jnp.int32))
    failed = state._replace(processes=state.processes | {"central": flow})
    assert run.outcome(failed)[0] == "finished"
    broken = state.checked._replace(not_finite=jnp.asarray(2, jnp.int32))
    assert run.outcome(failed._replace(checked=broken))[0] == "undefined"
    assert run.outcome(state._replace(checked=broken))[0] == "finished"


def test_the_first_that_is_not_finite():
    fine, broken = np.ones(2), np.array([1.0, np.nan])
    assert first_not_finite([np.ones(()), fine, fine, fine]) == 0
    assert first_not_finite([np.ones(()), fine, broken, broken]) == 2
    assert first_not_finite([np.array(np.inf), broken, broken, broken]) == 0
