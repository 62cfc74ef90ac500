"""Workloads from outside the package: registered, checked and built, with options of their own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray.checks import positive
from cflows_ray.problem import Problem
from cflows_ray.workloads import (
    NETWORKS,
    WORKLOADS,
    DataSet,
    DataSource,
    DataUnavailable,
    Network,
    NetworkKind,
    Recipe,
    Supervised,
    Workload,
    build_workload,
    check_workload,
    fetch_data,
    full_options,
)
from cflows_ray.workloads.layers import linear, network


@dataclass(frozen=True)
class BowlOptions:
    """A quadratic with a curvature of one's own."""

    curvature: float = 3.0

    def __post_init__(self):
        positive("curvature", self.curvature)


class Bowl(Recipe):
    """½ curvature ‖w‖²."""

    summary = "a quadratic in two parameters"
    option_classes = (BowlOptions,)

    def build(self, name, criterion, *options):
        (at,) = options

        def loss(params, data):
            del data
            return 0.5 * at.curvature * jnp.sum(params**2)

        return Workload(name, criterion, Problem(loss), lambda seed: jnp.full(2, 1.0 + seed))


@dataclass(frozen=True)
class LineOptions:
    """Points on a line."""

    slope: float = 2.0
    available: bool = True


def load(options):
    x = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
    y = np.float32(options.slope) * x
    return DataSet(x=x, y=y, x_test=None, y_test=None, num_outputs=1)


def fetch(options):
    if not options.available:
        raise DataUnavailable("the line is elsewhere")


@dataclass(frozen=True)
class ScaledOptions:
    """A linear network, times a constant."""

    gain: float = 1.0


def check(options, data):
    del options
    if data.x.ndim != 2:
        raise ValueError(f"network 'scaled' needs x of shape (n, p), got {data.x.shape}")


def build(options, data):
    def forward(scope, x, num_outputs):
        return options.gain * linear(scope.push("layer"), x, num_outputs, use_bias=False)

    return network(partial(forward, num_outputs=data.num_outputs), data)


LINE = DataSource("line", LineOptions, load, fetch=fetch)
SCALED = NetworkKind("scaled", ScaledOptions, build, check)


@pytest.fixture
def registered(monkeypatch):
    for registry in (WORKLOADS, NETWORKS):
        monkeypatch.setattr(registry, "_added", dict(registry._added))
    WORKLOADS.register("bowl", Bowl())
    WORKLOADS.register("line", Supervised("a line", LINE, SCALED, defaults={"slope": 3.0}))
    WORKLOADS.register("line_mlp", Supervised("an MLP on a line", LINE, "mlp"))
    NETWORKS.register("scaled", SCALED)


@pytest.mark.usefixtures("registered")
def test_a_problem_of_any_kind():
    assert full_options("bowl") == {"curvature": 3.0}
    check_workload("bowl", "mse", {"curvature": 2})
    with pytest.raises(ValueError, match="curvature must be > 0, got -1"):
        check_workload("bowl", "mse", {"curvature": -1})
    with pytest.raises(ValueError, match=r"option 'width' is unknown to workload 'bowl'"):
        check_workload("bowl", "mse", {"width": 2})
    fetch_data("bowl")
    workload = build_workload("bowl", curvature=5.0)
    assert float(workload.problem.loss(workload.init(1), ())) == 0.5 * 5 * 8
    assert build_workload("bowl", curvature=5.0) is workload


@pytest.mark.usefixtures("registered")
def test_a_data_set_and_a_network():
    expected = {"slope": 3.0, "available": True, "gain": 1.0, "ghost_batch": 0, "num_probe": 64}
    assert full_options("line") == expected
    workload = build_workload("line", gain=2.0)
    kernel = workload.init(0)["layer"]["kernel"]
    x = np.linspace(-1, 1, 5)
    loss = float(workload.problem.loss(workload.init(0), workload.problem.data))
    assert loss == pytest.approx(0.5 * np.mean((2 * x * float(kernel[0, 0]) - 3 * x) ** 2))
    with pytest.raises(DataUnavailable, match="elsewhere"):
        fetch_data("line", {"available": False})


@pytest.mark.usefixtures("registered")
def test_a_data_set_under_a_network_of_the_package_and_the_other_way_round(tmp_path):
    assert full_options("line_mlp", {"width": 3})["width"] == 3
    assert build_workload("line_mlp", width=3).init(0)["hidden_0"]["kernel"].shape == (1, 3)
    path = tmp_path / "task.npz"
    np.savez(path, x=np.ones((4, 2)), y=np.zeros(4))
    workload = build_workload("npz", path=str(path), network="scaled", gain=2.0)
    assert workload.init(0)["layer"]["kernel"].shape == (2, 1)


def build_linen(options, data):
    del options
    import flax.linen as nn
    import jax

    module = nn.Dense(data.num_outputs)
    return Network(
        apply=module.apply, init=lambda seed: module.init(jax.random.key(seed), data.x[:1])
    )


@pytest.mark.usefixtures("registered")
def test_a_module_of_flax():
    dense = NetworkKind("dense", ScaledOptions, build_linen, check)
    WORKLOADS.register("line_dense", Supervised("a line", LINE, dense))
    workload = build_workload("line_dense", slope=3.0)
    params = workload.init(0)
    params["params"]["kernel"] = 3.0 * np.ones_like(params["params"]["kernel"])
    assert float(workload.problem.loss(params, workload.problem.data)) == 0.0


def test_a_name_that_the_package_uses_is_refused():
    with pytest.raises(ValueError, match="workload must have a name that is not taken, got 'npz'"):
        WORKLOADS.register("npz", Bowl())


def test_code_that_is_named_is_imported_when_used(tmp_path):
    """A file outside the package, registered by "module:attribute"; JAX comes with `build` only."""
    (tmp_path / "outside.py").write_text(
        "from dataclasses import dataclass\n"
        "from cflows_ray.workloads import Recipe, Workload\n"
        "@dataclass(frozen=True)\n"
        "class Options:\n"
        "    depth: int = 4\n"
        "class Outside(Recipe):\n"
        "    summary = 'from outside'\n"
        "    option_classes = (Options,)\n"
        "    def build(self, name, criterion, *options):\n"
        "        import jax.numpy as jnp\n"
        "        from cflows_ray.problem import Problem\n"
        "        loss = lambda w, data: options[0].depth * w\n"
        "        return Workload(name, criterion, Problem(loss), lambda seed: jnp.float32(seed))\n"
        "OUTSIDE = Outside()\n"
    )
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from cflows_ray.workloads import WORKLOADS, build_workload, check_workload, fetch_data\n"
        "WORKLOADS.register('outside', 'outside:OUTSIDE')\n"
        "assert 'outside' in WORKLOADS and 'outside' not in sys.modules\n"
        "check_workload('outside', 'mse', {'depth': 2})\n"
        "fetch_data('outside')\n"
        "assert 'jax' not in sys.modules\n"
        "workload = build_workload('outside', depth=2)\n"
        "assert float(workload.problem.loss(workload.init(3), ())) == 6\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
