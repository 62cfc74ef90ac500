"""Properties of configurations, targets and schedules, over values that hypothesis draws."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cflows_ray.checks import ConfigError
from cflows_ray.problem import ParamStructure
from cflows_ray.schedules import DECAYS, LEAST_FACTOR, parse_schedule
from cflows_ray.sweep.run_config import RunConfig
from cflows_ray.workloads import check_data

QUICK = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def refusal(action):
    """Return the message with which an action is refused; None where it is not."""
    try:
        action()
    except ConfigError as error:
        return str(error)
    return None


RATES = st.floats(1e-6, 10.0)
LENGTHS = st.integers(1, 10**6)
FRACTIONS = st.floats(1e-6, 1.0)


@st.composite
def schedules(draw):
    parts = []
    if draw(st.booleans()):
        parts.append(f"linear_warmup:{draw(LENGTHS)}")
    if draw(st.booleans()):
        end = f":{draw(FRACTIONS)!r}" if draw(st.booleans()) else ""
        parts.append(f"{draw(st.sampled_from(sorted(DECAYS)))}:{draw(LENGTHS)}{end}")
    return "+".join(parts) or "constant"


RULES = {
    "gradient_descent": {},
    "rmsprop": {"beta2": st.floats(0.9, 0.9999), "eps": st.floats(1e-12, 1e-2)},
    "adam": {"beta1": st.floats(0.5, 0.99), "beta2": st.floats(0.9, 0.9999)},
}


@st.composite
def configurations(draw):
    rule = draw(st.sampled_from(sorted(RULES)))
    return {
        "workload": "saddle_2d",
        "rule": rule,
        "lr": draw(RATES),
        "schedule": draw(schedules()),
        "seed": draw(st.integers(0, 2**63 - 1)),
        "warmup": draw(st.integers(0, 100)),
        "steps": draw(st.integers(1, 10**6)),
        "flows": draw(st.sampled_from([("stable",), ("midpoint", "stable"), ("central",)])),
        "num_eigs": draw(st.integers(1, 64)),
        "dtype": draw(st.sampled_from(["float32", "float64"])),
        **{name: draw(values) for name, values in RULES[rule].items() if draw(st.booleans())},
    }


@given(configurations())
@QUICK
def test_a_configuration_survives_json(values):
    run = RunConfig(**values)
    text = json.dumps(run.to_json())
    again = RunConfig(**json.loads(text))
    assert again == run
    assert again.run_id == run.run_id
    assert json.dumps(again.to_json()) == text


@given(configurations(), st.data())
@QUICK
def test_an_id_is_of_the_values_whatever_their_order_and_type(values, data):
    run = RunConfig(**values)
    shuffled = data.draw(st.permutations(list(values.items())))
    as_arrays = {k: np.asarray(v) if isinstance(v, int | float) else v for k, v in shuffled}
    assert RunConfig(**as_arrays).run_id == run.run_id
    # and of each of them: another value is another run
    name = data.draw(st.sampled_from(["lr", "seed", "steps", "warmup", "num_eigs"]))
    changed = values | {name: values[name] * 2 + 1}
    if name == "num_eigs" or changed[name] < 2**31:
        assert RunConfig(**changed).run_id != run.run_id


@given(schedules(), st.lists(st.floats(0, 1e7), min_size=1, max_size=20))
@QUICK
def test_a_schedule_is_between_its_floor_and_1(text, times):
    schedule = parse_schedule(text)
    with jax.enable_x64(True):
        factors = np.array([schedule.factor(jnp.asarray(t, "float64")) for t in times])
    assert np.all(np.isfinite(factors))
    assert np.all(factors >= LEAST_FACTOR)
    assert np.all(factors <= 1.0)


@given(st.text(alphabet="coslinear_warmup:+0123456789.-e", max_size=30))
@QUICK
def test_any_text_is_a_schedule_or_refused_in_a_line(text):
    message = refusal(lambda: parse_schedule(text))
    assert message is None or ("schedule must be" in message and "\n" not in message)


SHAPES = arrays.array_shapes(min_dims=1, max_dims=3, max_side=3)


@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=3),
        arrays.arrays(np.float32, SHAPES, elements=st.floats(-8, 8, width=32)),
        min_size=1,
        max_size=4,
    )
)
@QUICK
def test_parameters_come_back_from_the_flat_vector(params):
    structure = ParamStructure.of(params, "float64")
    flat = structure.flatten(params)
    assert flat.shape == (sum(x.size for x in params.values()),)
    again = structure.unflatten(flat)
    assert again.keys() == params.keys()
    for name, x in params.items():
        np.testing.assert_array_equal(again[name], x)


@st.composite
def targets(draw):
    """Draw targets of 6 examples: classes or reals, with axes too many, too few or just right."""
    shape = draw(st.sampled_from([(6,), (6, 1), (6, 2), (6, 1, 1), (5,), (1, 6), (6, 6), ()]))
    kind = draw(st.sampled_from(["int64", "int8", "float32", "float64", "bool"]))
    values = np.arange(int(np.prod(shape))).reshape(shape) % 2
    return values.astype(kind)


@given(targets(), st.sampled_from(["mse", "cross_entropy"]))
@settings(QUICK, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_targets_meet_the_network_or_are_refused_in_a_line(tmp_path, y, criterion):
    """Never over pairs of examples: y has one row an example, or is refused."""
    x = np.random.default_rng(0).standard_normal((6, 4))
    path = tmp_path / "task.npz"
    np.savez(path, x=x, y=y)
    options = {"path": str(path), "network": "mlp", "width": 3, "depth": 1}
    message = refusal(lambda: check_data("npz", criterion, options))
    if message is None:
        assert y.shape[:1] == (6,)
        assert y.size == 6 or y.ndim == 2
    else:
        assert "must" in message or "needs" in message
        assert "\n" not in message
