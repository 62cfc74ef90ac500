"""The analytic workload."""

from __future__ import annotations

from cflows_ray.workloads import build_workload


def test_saddle_is_its_formula():
    workload = build_workload("saddle_2d", c=0.5, x0=2.0, y0=3.0)
    assert float(workload.problem.loss(workload.init(0), workload.problem.data)) == 4.5
    assert float(workload.init(1)["x"]) != 2.0
