"""What a loss, its data and its start can be that they should not: a word each, never silence."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from cflows_ray import GradientDescent, PairedOptions, PairedRun, Problem, RMSProp, run_paired
from cflows_ray.paired.rows import check_one_loss
from cflows_ray.paired.tracing import trace
from cflows_ray.problem import ParamStructure

RULE = GradientDescent(0.1)
QUICK = {"steps": 3, "flows": ("midpoint",)}


def losses(result):
    rows = result.steps
    return rows[rows.process == "discrete"].train_loss.to_numpy()


@pytest.mark.parametrize(
    ("loss", "at_step"),
    [
        (lambda w: jnp.sum(jnp.log(w - 0.75)), 1),  # gradient 4 at 1: steps to 0.6, NaN
        (lambda w: jnp.where(jnp.sum(w) < 1.95, -jnp.inf, jnp.sum(w)), 1),
        (lambda w: jnp.sum(w) + jnp.inf, 0),
        (lambda w: jnp.sum(w) - jnp.inf, 0),
        (lambda w: jnp.sum(w) * jnp.nan, 0),
    ],
    ids=["nan later", "falls to -inf", "starts at inf", "starts at -inf", "starts at nan"],
)
def test_a_loss_that_is_not_finite_has_diverged(loss, at_step):
    result = run_paired(loss, np.ones(2), RULE, **QUICK)
    assert result.status == "diverged"
    rows = result.steps[result.steps.process == "discrete"]
    assert rows.status.iloc[-1] == "diverged"
    assert rows.step.iloc[-1] == at_step
    assert not np.isfinite(losses(result)[-1])


@pytest.mark.parametrize("value", [1.0, np.float32(1.0)])
def test_a_constant_loss_is_a_loss(value):
    result = run_paired(lambda _: value, np.ones(2), RULE, steps=2, flows=())
    assert result.status == "finished"
    np.testing.assert_array_equal(losses(result), np.ones(3))
    np.testing.assert_array_equal(result.final["discrete"], np.ones(2))


def descend(y, steps=3):
    """Return the losses of gradient descent on |w - y|², by NumPy, from w = 0."""
    w, found = np.zeros(3), []
    for _ in range(steps + 1):
        found.append(np.sum((w - y) ** 2))
        w = w - 0.1 * 2 * (w - y)
    return np.array(found)


class Target:
    def __init__(self, y):
        self.y = y

    def loss(self, w):
        return jnp.sum((w - self.y) ** 2)

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 0


class TestWhatWasCaptured:
    """Captured data count as they are at the call, and new values compile nothing."""

    def test_replaced_under_one_function(self):
        captured = {"y": np.ones(3)}

        def loss(w):
            return jnp.sum((w - captured["y"]) ** 2)

        first = run_paired(loss, np.zeros(3), RULE, **QUICK)
        captured["y"] = captured["y"] + 10
        second = run_paired(loss, np.zeros(3), RULE, **QUICK)
        np.testing.assert_allclose(losses(first), descend(np.ones(3)), rtol=1e-5)
        np.testing.assert_allclose(losses(second), descend(np.full(3, 11.0)), rtol=1e-5)
        assert second.compile_s == 0

    def test_bound_methods_of_objects_that_compare_equal(self):
        for y in (1.0, 5.0):
            result = run_paired(Target(np.full(3, y)).loss, np.zeros(3), RULE, **QUICK)
            np.testing.assert_allclose(losses(result), descend(np.full(3, y)), rtol=1e-5)
        assert result.compile_s == 0

    def test_a_captured_python_number(self):
        for y in (1.0, 1.0000002):
            result = run_paired(
                lambda w, y=y: jnp.sum((w - y) ** 2), np.zeros(3), RULE, dtype="float64", **QUICK
            )
            np.testing.assert_allclose(losses(result), descend(np.full(3, y)), rtol=1e-12)

    def test_data_changed_in_place(self):
        data = {"y": np.ones(3)}
        problem = Problem(lambda w, d: jnp.sum((w - d["y"]) ** 2), data)
        for factor in (1, 4):
            data["y"] *= factor
            run = PairedRun(problem, RULE, PairedOptions(flows=("midpoint",)))
            state = run.start(np.zeros(3), steps=3, warmup=0, seed=0)
            rows = run.advance(state, 3)[1]
            found = rows[rows.process == "discrete"].train_loss
            np.testing.assert_allclose(found, descend(np.full(3, float(factor))), rtol=1e-5)

    def test_by_a_function_inside_that_jax_keeps(self):
        """A jitted function, the body of a loop, a branch: traced once by JAX, as it was then."""
        captured = {}

        def distance(w):
            return jnp.sum((w - captured["y"]) ** 2)

        def add(total, w):
            return total + distance(w), None

        def step(_, w):
            return w + (w - captured["y"]) / w.size

        inside = jax.jit(distance)
        outside = jax.jit(lambda w: inside(w))
        remembered = jax.checkpoint(distance)
        losses = {
            "jit": lambda w: inside(w),
            "jit in jit": lambda w: outside(w),
            "vmap of jit": lambda w: jax.vmap(inside)(w[None])[0],
            "scan": lambda w: jax.lax.scan(add, 0.0, w[None])[0],
            "checkpoint": lambda w: remembered(w),
            "cond": lambda w: jax.lax.cond(w[0] > -1, distance, jnp.sum, w),
            "fori_loop": lambda w: jnp.sum(jax.lax.fori_loop(0, 1, step, w - 2)),
        }
        structure = ParamStructure.of(np.zeros(3), "float32")
        for y in (1.0, 5.0, 10.0):
            # made anew, and changed in place
            captured["y"] = captured["y"] * 0 + y if y == 5 else captured.get("y", np.zeros(3, "f"))
            captured["y"][:] = y
            for name, loss in losses.items():
                traced, arrays = trace(lambda w, _, loss=loss: loss(w), "loss_fn", structure, ())
                found = float(traced(arrays, jnp.zeros(3), ()))
                right = -8 - y if name == "fori_loop" else 3 * y**2
                assert found == right, (name, y)

    def test_by_a_jitted_function_in_a_run(self):
        captured = {"y": np.ones(3)}
        inside = jax.jit(lambda w: jnp.sum((w - captured["y"]) ** 2))
        for y in (1.0, 11.0):
            captured["y"] = captured["y"] * y
            result = run_paired(lambda w: inside(w) + 0.0, np.zeros(3), RULE, **QUICK)
            np.testing.assert_allclose(losses(result), descend(np.full(3, y)), rtol=1e-5)

    def test_later_changes_do_not_reach_what_was_traced(self):
        """The device could otherwise share the memory of an array that lies well in it."""
        whole = np.ones(64, np.float32)
        y = whole[(-whole.ctypes.data % 64) // 4 :][:32]
        structure = ParamStructure.of(np.ones(32), "float32")
        _, (found,) = trace(lambda w, _: jnp.sum(w * y), "loss_fn", structure, ())
        y *= 2
        np.testing.assert_array_equal(found, np.ones(32))

    def test_jax_functions_inside_are_not_traced_anew(self, monkeypatch):
        """JAX would keep each of these traces for good."""
        made = []
        monkeypatch.setattr("cflows_ray.paired.tracing._UNIQUE", iter(lambda: made.append(1), 1))
        structure = ParamStructure.of(np.zeros(3), "float32")
        for _ in range(2):
            trace(lambda w, _: jnp.mean(jnp.sort(jax.nn.gelu(w))), "loss_fn", structure, ())
        assert not made

    def test_data_as_an_argument(self):
        result = run_paired(
            lambda w, y: jnp.sum((w - y) ** 2), np.zeros(3), RULE, data=np.full(3, 2.0), **QUICK
        )
        np.testing.assert_allclose(losses(result), descend(np.full(3, 2.0)), rtol=1e-5)


def test_a_loss_that_is_not_pure_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="loss_fn must be a pure function") as error:
        run_paired(lambda w: jnp.sum(w**2 * rng.random(2)), np.ones(2), RULE, **QUICK)
    assert "\n" not in str(error.value)


def with_rule(slope):
    """Return Σ w² with a derivative rule of its own: slope · w."""

    @jax.custom_jvp
    def square(x):
        return jnp.sum(x**2)

    square.defjvp(lambda x, t: (square(x[0]), jnp.sum(slope * x[0] * t[0])))
    return lambda w, _: square(w)


def test_derivative_rules_tell_functions_apart():
    structure = ParamStructure.of(np.ones(2), "float32")
    slopes = (2.0, 2.0, 3.0, np.array([2.0, 3.0]), np.array([2.0, 4.0]))
    found = [trace(with_rule(slope), "loss_fn", structure, ())[0] for slope in slopes]
    assert found[0] == found[1]
    assert found[0] != found[2]
    assert found[3] != found[4]


@pytest.mark.parametrize(
    "lr", [0.5, np.float32(0.5), np.array(0.5), jnp.float32(0.5), jnp.bfloat16(0.5)]
)
def test_numbers_of_arrays_are_numbers(lr):
    rule = GradientDescent(lr, momentum=np.array(0.25))
    assert rule == GradientDescent(0.5, momentum=0.25)
    assert isinstance(rule.lr, float)
    assert PairedOptions(num_eigs=np.int32(3), substeps=jnp.int32(2)).num_eigs == 3


@pytest.mark.parametrize(
    ("rule", "dtype", "words"),
    [
        (RMSProp(0.1, eps=1e-50), "float32", "eps must be 1.18e-38 to 3.4e[+]38 in float32, got"),
        (RMSProp(0.1, eps=1e-50), "float64", None),
        (GradientDescent(1e-40), "float32", "lr must be 1.18e-38 .* got 1e-40"),
        (GradientDescent(1e39), "float32", r"lr must be .* got 1e\+39"),
        (GradientDescent(0.1, momentum=0.0, weight_decay=0.0), "float32", None),
    ],
)
def test_a_number_that_the_dtype_has_not_is_refused(rule, dtype, words):
    problem, options = Problem(lambda w, _: jnp.sum(w)), PairedOptions(flows=(), dtype=dtype)
    if words is None:
        PairedRun(problem, rule, options)
    else:
        with pytest.raises(ValueError, match=words):
            PairedRun(problem, rule, options)


@pytest.mark.parametrize(
    ("params", "dtype", "words"),
    [
        ({"a": np.ones(2), "b": np.array([1, np.nan])}, "float64", r"got nan at \['b'\]"),
        (np.array([1e300]), "float32", "must be finite in float32, got inf$"),
        (np.array([1e300]), "float64", None),
        ([jnp.ones(2, jnp.bfloat16), jnp.ones(2, jnp.float16)], "float32", None),
    ],
)
def test_parameters_in_the_dtype_of_the_run(params, dtype, words):
    structure = ParamStructure.of(params, dtype)
    if words is None:
        assert structure.flatten(params).dtype == dtype
    else:
        with pytest.raises(ValueError, match=words):
            structure.flatten(params)


def table(**losses):
    rows = {"step": 0, "train_loss": list(losses.values()), "process": list(losses)}
    return pd.DataFrame(rows).assign(distance_to_discrete=[np.nan, 0.0, 0.0, 1.0])


def test_processes_with_other_losses_at_one_point():
    check_one_loss(table(discrete=1.0, stable=1.009, central=1.0, midpoint=7.0), "float32")
    check_one_loss(table(discrete=np.inf, stable=1.0, central=np.nan, midpoint=7.0), "float32")
    words = r"loss_fn must have one value .* 1 \(discrete\) and 1.02 \(central\) at the start"
    with pytest.raises(ValueError, match=words):
        check_one_loss(table(discrete=1.0, stable=1.01, central=1.02, midpoint=7.0), "float32")


def test_a_callback_that_gives_another_number_each_time_is_refused():
    rng = np.random.default_rng(0)

    def loss(w):
        noise = jax.pure_callback(lambda: np.float32(rng.random()), jax.ShapeDtypeStruct((), "f"))
        return jnp.sum(w**2) * (1 + noise)

    with pytest.raises(ValueError, match="it is not a pure function"):
        run_paired(loss, np.ones(2), RULE, steps=2, flows=("persistence",))


def test_large_arrays_that_were_captured(monkeypatch):
    monkeypatch.setattr("cflows_ray.paired.run.LARGE_CAPTURE", 4000)
    y = np.ones(1000, np.float32)
    run = PairedRun(Problem(lambda w, _: jnp.sum(w * y)), RULE, PairedOptions(flows=()))
    words = "loss_fn captured 0 MB of arrays, .* give them as data"
    with pytest.warns(UserWarning, match=words):
        run.start(np.ones(1000), steps=1, warmup=0, seed=0)
    inside = jax.jit(lambda w: jnp.sum(w * y))
    run = PairedRun(Problem(lambda w, _: inside(w)), RULE, PairedOptions(flows=()))
    with pytest.warns(UserWarning, match=words):
        run._use_program(ParamStructure.of(np.ones(1000), "float32"))
    given = PairedRun(Problem(lambda w, d: jnp.sum(w * d), y), RULE, PairedOptions(flows=()))
    given.start(np.ones(1000), steps=1, warmup=0, seed=0)


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ({"outputs": lambda w, _: w.sum()}, r"outputs must return an array \(n, ...\), got"),
        ({"outputs": lambda w, _: (w, w)}, r"outputs .* an array \(n, ...\), got a PyTreeDef"),
        ({"outputs": lambda w, _: w > 0}, "outputs must return floating-point numbers, got bool"),
        ({"accuracy": lambda w, _: w}, r"accuracy must return a scalar, got .* \(3,\)"),
        ({"accuracy": lambda w, _: w[0] > 0}, "accuracy must return a floating-point number"),
    ],
)  # fmt: skip
def test_outputs_and_accuracy_that_cannot_be_are_named(functions, message):
    problem = Problem(lambda w, _: w.sum(), **functions)
    run = PairedRun(problem, GradientDescent(0.1), PairedOptions())
    with pytest.raises(ValueError, match=message):
        run.start(np.ones(3), steps=1, warmup=0, seed=0)
