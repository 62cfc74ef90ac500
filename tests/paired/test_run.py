"""The paired run: its table, its errors, compilations, chunks, resume, divergence."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from cflows_ray import (
    GradientDescent,
    PairedOptions,
    PairedRun,
    Problem,
    RMSProp,
    ScalarRMSProp,
    run_paired,
)
from cflows_ray.flows import steps_columns
from cflows_ray.schema import STEP_STATUSES
from tests.networks import NETWORKS

LOSS, PARAMS = NETWORKS["tanh_regression"]()


def problem_loss(params, data):
    """Return the loss of a nested pytree; it makes a default-dtype array of its own."""
    x, y = data
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    weights = jnp.ones(hidden.shape[-1])
    assert weights.dtype == params["head"].dtype  # 64-bit mode must not leak into a float32 run
    return 0.5 * jnp.mean((hidden @ (weights * params["head"]) - y) ** 2)


def problem_outputs(params, x):
    return jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"]) @ params["head"]


def problem_accuracy(params, data):
    return jnp.mean((problem_outputs(params, data[0]) > 0) == (data[1] > 0))


def make_problem(seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((30, 4)), rng.standard_normal(30)
    return Problem(
        problem_loss, (x, y), problem_outputs, x[:5], problem_accuracy, (x[:7] + 0.1, y[:7])
    )


def make_params(seed=0):
    rng = np.random.default_rng(10 + seed)
    return {
        "hidden": {"kernel": rng.standard_normal((4, 5)), "bias": np.zeros(5)},
        "head": rng.standard_normal(5).astype(np.float32),
    }


OPTIONS = PairedOptions(flows=("midpoint", "stable", "central"), num_eigs=2)


def finish(run, state, chunk):
    frames = []
    while not run.is_done(state):
        state, rows = run.advance(state, chunk)
        frames.append(rows)
    return state, pd.concat(frames, ignore_index=True)


def assert_same(a, b):
    """Bit for bit, missing values and lists included."""
    pd.testing.assert_frame_equal(a, b, check_exact=True)


@pytest.fixture(scope="module")
def straight():
    """60 steps of gradient descent past the edge, in one chunk."""
    run = PairedRun(make_problem(), GradientDescent(0.6), OPTIONS)
    state = run.start(make_params(), steps=60, warmup=3, seed=1)
    return run, *finish(run, state, 60)


class TestTable:
    """What stands in the rows."""

    def test_columns_and_rows(self, straight):
        _, _, rows = straight
        assert list(rows.columns) == [c.name for c in steps_columns() if c.name != "run_id"]
        assert len(rows) == 61 * 4
        assert rows.groupby("process").step.apply(list).map(lambda s: s == list(range(61))).all()
        assert set(rows.status) <= set(STEP_STATUSES)
        assert rows.status.eq("ok").mean() > 0.95

    def test_the_run_is_past_the_edge(self, straight):
        _, _, rows = straight
        central = rows[rows.process == "central"]
        assert central.num_critical.max() >= 1
        assert central.sigma_trace.iloc[-1] > 0
        assert central.effective_sharpness.iloc[-1] == pytest.approx(2, abs=0.01)

    def test_all_start_at_the_same_point(self, straight):
        _, _, rows = straight
        first = rows[rows.step == 0].set_index("process")
        flows = ["stable", "central"]
        assert first.loc[flows, "distance_to_discrete"].eq(0).all()
        assert first.loc[flows, "nu_rel_error"].isna().all()  # gradient descent has no ν
        assert first.loc[["discrete", *flows], "distance_from_start"].eq(0).all()
        assert first.loc[flows, "train_loss"].nunique() == 1

    def test_what_is_not_defined_is_missing(self, straight):
        _, _, rows = straight
        by = dict(iter(rows.groupby("process")))
        assert by["discrete"].train_loss_predicted.isna().all()
        assert by["discrete"].distance_to_discrete.isna().all()
        assert by["midpoint"].effective_sharpness.isna().all()
        assert by["midpoint"].effective_eigs.isna().all()
        assert by["stable"].sigma_trace.isna().all()
        assert by["stable"].sigma_eigs.isna().all()
        assert by["central"].sigma_trace.notna().all()

    def test_lists_have_one_entry_per_critical_direction(self, straight):
        _, _, rows = straight
        central = rows[rows.process == "central"]
        assert central.sigma_eigs.map(len).tolist() == central.num_critical.tolist()
        assert central.displacement_sq.map(len).tolist() == central.num_critical.tolist()
        excess = central.train_loss_predicted - central.train_loss
        np.testing.assert_allclose(central.sigma_eigs.map(np.sum), excess, rtol=1e-3, atol=1e-6)

    def test_evaluations_are_those_of_the_final_parameters(self, straight):
        run, state, rows = straight
        problem, last = make_problem(), rows[rows.step == 60].set_index("process")
        final = run.final(state)
        for process, params in final.items():
            row = last.loc[process]
            assert row.train_loss == pytest.approx(
                float(problem_loss32(params, problem.data)), rel=1e-4
            )
            assert row.test_loss == pytest.approx(
                float(problem_loss32(params, problem.test_data)), rel=1e-4
            )
            accuracy = float(problem_accuracy(params, problem.test_data))
            assert row.test_accuracy == pytest.approx(accuracy)
            gap = problem_outputs(params, problem.probe)
            gap = gap - problem_outputs(final["discrete"], problem.probe)
            if process != "discrete":
                expected = float(jnp.sqrt(jnp.mean(gap**2)))
                assert row.output_distance == pytest.approx(
                    expected, rel=1e-3, abs=2e-7
                )  # of float32

    def test_counts_grow(self, straight):
        _, _, rows = straight
        for _, group in rows.groupby("process"):
            assert group.num_gradients.is_monotonic_increasing
        discrete = rows[rows.process == "discrete"]
        assert discrete.num_gradients.tolist() == list(range(1, 62))


def problem_loss32(params, data):
    return problem_loss(jax.tree.map(jnp.float32, params), jax.tree.map(jnp.float32, data))


def test_midpoint_is_the_weighted_mean_of_three_iterates():
    iterates = [np.asarray(PARAMS)]
    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(LOSS))
        for _ in range(7):
            iterates.append(iterates[-1] - 0.3 * np.asarray(gradient(iterates[-1])))
        run = run_paired(
            LOSS, PARAMS, GradientDescent(0.3), steps=6, flows=("midpoint",), dtype="float64"
        )
        middle = 0.25 * (iterates[5] + 2 * iterates[6] + iterates[7])
        np.testing.assert_allclose(run.final["midpoint"], middle, rtol=1e-12)
        rows = run.steps[run.steps.process == "midpoint"].set_index("step")
        # not the ordinary loss
        assert rows.train_loss[6] == pytest.approx(float(LOSS(middle)), rel=1e-12)
    assert np.isnan(rows.train_loss[0])  # without warm-up there is no iterate before the first
    gap = np.linalg.norm(middle - iterates[6])
    assert rows.distance_to_discrete[6] == pytest.approx(gap, rel=1e-9)


class TestChunks:
    """However a run is cut or interrupted, its table is the same to the last bit."""

    @pytest.mark.parametrize("chunk", [1, 7, 60])
    def test_chunks_do_not_matter(self, straight, chunk):
        _, final, rows = straight
        run = PairedRun(make_problem(), GradientDescent(0.6), OPTIONS)
        state = run.start(make_params(), steps=60, warmup=3, seed=1)
        state, again = finish(run, state, chunk)
        assert_same(again, rows)
        for a, b in zip(*map(jax.tree.leaves, (state, final)), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_saved_and_restored_is_uninterrupted(self, straight):
        _, _, rows = straight
        run = PairedRun(make_problem(), GradientDescent(0.6), OPTIONS)
        state = run.start(make_params(), steps=60, warmup=3, seed=1)
        state, first = run.advance(state, 31)
        saved = {name: array.copy() for name, array in run.to_arrays(state).items()}
        other = PairedRun(make_problem(), GradientDescent(0.6), OPTIONS)
        restored = other.from_arrays(saved, make_params(seed=5))
        _, second = finish(other, restored, 100)
        assert_same(pd.concat([first, second], ignore_index=True), rows)

    def test_a_foreign_state_is_refused(self, straight):
        run, state, _ = straight
        saved = run.to_arrays(state)
        with pytest.raises(ValueError, match=r"saved start must be float32\[30\], got float64"):
            run.from_arrays(saved | {"start": saved["start"].astype(np.float64)})
        with pytest.raises(ValueError, match="differs in"):
            run.from_arrays(saved | {"extra": np.zeros(2)})

    def test_record_every_thins_the_same_rows(self, straight):
        _, _, rows = straight
        options = PairedOptions(flows=("midpoint", "stable", "central"), num_eigs=2, record_every=8)
        run = PairedRun(make_problem(), GradientDescent(0.6), options)
        state = run.start(make_params(), steps=60, warmup=3, seed=1)
        _, thinned = finish(run, state, 60)
        assert sorted(set(thinned.step)) == [*range(0, 60, 8), 60]
        kept = rows[rows.step.isin(thinned.step)].reset_index(drop=True)
        for column in ("train_loss", "train_loss_predicted", "distance_to_discrete"):
            np.testing.assert_array_equal(thinned[column], kept[column])

    @pytest.mark.parametrize("chunk", [1, 60])
    def test_a_flow_that_ends_between_two_rows_is_said_to_in_the_next(self, chunk):
        options = {
            "flows": ("stable", "corrected"),
            "num_eigs": 1,
            "corrected_sharpness_limit": 1.5,
        }
        every = {}
        for record_every in (1, 7):
            run = PairedRun(
                Problem(lambda w, _: _sharpening(w)),
                GradientDescent(1.0),
                PairedOptions(record_every=record_every, **options),
            )
            state = run.start(np.array([0.05, 1.0], np.float32), steps=60, warmup=0, seed=0)
            every[record_every] = finish(run, state, chunk)[1].query("process == 'corrected'")
        ended = every[1].iloc[-1]
        assert ended.status == "stopped"
        assert ended.step % 7
        last = every[7].iloc[-1]
        assert (last.status, last.step) == ("stopped", 7 * (ended.step // 7 + 1))
        assert last.effective_sharpness == pytest.approx(ended.effective_sharpness, rel=1e-5)
        assert list(every[7].status[:-1].unique()) == ["ok"]


def _sharpening(w):  # sharpness w[1] rises by 0.02 a step
    return 0.5 * w[1] * w[0] ** 2 - 0.02 * w[1]


class TestCompilations:
    """What is traced and what is static."""

    def test_other_hyperparameters_compile_nothing(self):
        settings = {"steps": 3, "flows": ("central",), "num_eigs": 2}
        first = run_paired(LOSS, PARAMS, RMSProp(0.01), **settings)
        with jax.log_compiles(False):
            compiled = count_compilations(
                lambda: run_paired(
                    LOSS, PARAMS, RMSProp(0.02, 0.95, 1e-6), seed=7, warmup=2, **settings
                )
            )
        assert first.compile_s > 0
        assert compiled == 0

    def test_the_count_sees_a_compilation(self):
        assert count_compilations(lambda: jax.jit(lambda x: x * 3.14159)(1.0)) > 0


def count_compilations(action):
    seen = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        action()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return len(seen)


@pytest.mark.parametrize("rule", [ScalarRMSProp, RMSProp])
def test_beta2_near_1_loses_no_digits_in_float32(rule):
    """1 - 0.999 subtracted in float32 is off by 1.3e-5."""
    slope = np.array([0.3, -0.7, 1.1])
    run = PairedRun(
        Problem(lambda w, _: jnp.sum(w * slope)),
        rule(0.01, beta2=0.999, bias_correction=True),
        PairedOptions(flows=()),
    )
    state = run.start(np.zeros(3), steps=9, warmup=5, seed=0)
    squared = slope**2 if rule is RMSProp else np.sum(slope**2)
    np.testing.assert_allclose(state.optimizer.rule_state.nu, (1 - 0.999**5) * squared, rtol=1e-6)
    # with a constant gradient, bias correction divides by |g| to the last digit
    step = -0.01 * slope / np.sqrt(squared)
    np.testing.assert_allclose(state.optimizer.params, 5 * step, rtol=1e-6)


class TestEndings:
    """Divergence and stopped flows are statuses, with all rows up to there."""

    def test_divergence(self):
        def loss(w):
            return jnp.sum(w**4) + jnp.sum(w**2)

        result = run_paired(loss, np.ones(3), GradientDescent(0.9), steps=50, flows=("stable",))
        discrete = result.steps[result.steps.process == "discrete"]
        assert result.status == "diverged"
        assert "loss not finite or above" in result.status_detail
        assert discrete.status.tolist() == ["ok"] * (len(discrete) - 1) + ["diverged"]
        assert 1 < len(discrete) < 50
        assert set(result.steps[result.steps.process == "stable"].step) == set(discrete.step)

    def test_a_stopped_flow_stops_alone(self):
        def loss(p):  # sharpness of the stable flow grows without bound
            return 0.5 * p["y"] * p["x"] ** 2 - 0.005 * p["y"]

        options = PairedOptions(flows=("stable", "central"), sharpness_limit=2.2)
        run = PairedRun(Problem(lambda p, _: loss(p)), GradientDescent(1.0), options)
        start = {"x": np.array(0.1), "y": np.array(1.95)}
        state = run.start(start, steps=120, warmup=0, seed=0)
        state, rows = finish(run, state, 120)
        stable = rows[rows.process == "stable"]
        assert run.outcome(state) == ("finished", "stable flow stopped")
        assert stable.status.tolist() == ["ok"] * (len(stable) - 1) + ["stopped"]
        assert stable.effective_sharpness.iloc[-1] > 2.2 >= stable.effective_sharpness.iloc[-2]
        assert len(stable) < 121 == len(rows[rows.process == "central"])
        stopped_at = run.final(state)["stable"]
        distance = np.hypot(stopped_at["x"] - start["x"], stopped_at["y"] - start["y"])
        assert distance == pytest.approx(stable.distance_from_start.iloc[-1], rel=1e-4)

    def test_infinite_losses_stand_in_the_rows(self):
        def loss(w):
            return jnp.sum(jnp.exp(w**2))

        result = run_paired(loss, np.ones(2), GradientDescent(5.0), steps=9, flows=("stable",))
        discrete = result.steps[result.steps.process == "discrete"]
        assert result.status == "diverged"
        assert np.isposinf(discrete.train_loss.iloc[-1])
        assert discrete.effective_eigs.iloc[-1] is None


GOOD = {"steps": 2, "flows": ("stable",)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be an integer >= 1, got 0"),
        ({"steps": 2.5}, "steps must be an integer >= 1, got 2.5"),
        ({"warmup": -1}, "warmup must be an integer >= 0, got -1"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"num_eigs": 0}, "num_eigs must be an integer >= 1, got 0"),
        ({"substeps": 0}, "substeps must be an integer >= 1, got 0"),
        ({"scheme": "heun"}, "scheme must be one of .*, got 'heun'"),
        (
            {"scheme": "extrapolated", "substeps": 3},
            "substeps must be even for the scheme 'extrapolated', got 3",
        ),
        ({"record_every": True}, "record_every must be an integer >= 1, got True"),
        ({"dtype": "float16"}, "dtype must be one of .*, got 'float16'"),
        ({"flows": ("orbital",)}, "flows must be one of .*, got 'orbital'"),
        ({"flows": ("stable", "stable")}, "flows must be free of repetitions, got 'stable'"),
        ({"rule": "sgd"}, "rule must be an update rule"),
        ({"rule": ScalarRMSProp(0.1, beta2=0.1)}, "beta2 must be > h / "),
        ({"params": {"a": np.arange(3)}}, r"params must hold floating-point .* int64 at \['a'\]"),
        ({"params": {}}, "params must hold at least one number, got none"),
        ({"loss_fn": lambda w: w}, r"loss_fn must return a scalar, got an array of shape \(3,\)"),
        ({"loss_fn": lambda _: jnp.int32(1)}, "loss_fn must return a floating-point number"),
        ({"loss_fn": 3}, "loss_fn must be callable, got 3"),
    ],
)  # fmt: skip
def test_bad_input_is_named_before_anything_is_compiled(changes, message):
    good = {"loss_fn": jnp.sum, "params": np.ones(3), "rule": GradientDescent(0.1)}
    arguments = good | GOOD | changes
    compiled = []

    def call():
        with pytest.raises(ValueError, match=message) as error:
            run_paired(
                arguments.pop("loss_fn"),
                arguments.pop("params"),
                arguments.pop("rule"),
                **arguments,
            )
        compiled.append("\n" not in str(error.value))

    assert count_compilations(call) == 0
    assert compiled == [True]
