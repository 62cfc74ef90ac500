"""What the benchmarks rest on: their variant of the oracle, tables, imports."""

import subprocess
import sys

import numpy as np
import pytest

from tests.benchmarks.agreement import oracle_path
from tests.benchmarks.measuring import number, table
from tests.networks import NETWORKS

ROOT_CODE = (
    "import sys, tests.benchmarks.gpu; print(sorted({'ray', 'orbax', 'tyro'} & set(sys.modules)))"
)


@pytest.mark.slow
def test_third_derivatives_contracted_on_demand_leave_the_oracle_as_it_is():
    loss, params = NETWORKS["tanh_regression"]()
    rule = ("gradient_descent", 0.8, 0.0)
    paths = [oracle_path(loss, params, rule, 6, warmup=40, dense=dense) for dense in (True, False)]
    assert max(paths[0].num_critical) == 1
    np.testing.assert_allclose(paths[0].params, paths[1].params, rtol=1e-9)
    np.testing.assert_allclose(paths[0].predicted, paths[1].predicted, rtol=1e-9)


def test_gpu_script_loads_no_ray():
    command = [sys.executable, "-c", ROOT_CODE]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_tables_show_three_digits_and_whole_numbers():
    assert table("a | b", [(0.123456, 12345)]).splitlines()[-1] == "| 0.123 | 12,345 |"
    assert [number(x) for x in (0.0, 1234.5, 1e-5, float("nan"))] == ["0", "1234", "1.0e-05", "-"]
