"""Configurations: what is refused and how it is said, run ids, and that nothing heavy is loaded."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cflows_ray.checks import ConfigError, sequence
from cflows_ray.store.tables import runs_schema
from cflows_ray.sweep.config import Grid, SweepConfig
from cflows_ray.sweep.execution_settings import Execution
from cflows_ray.sweep.options import Options, apply, parse
from cflows_ray.sweep.placement import (
    autoscaling_nodes,
    check_fits,
    check_reachable,
    largest_pack,
    most_at_once,
    resources_per_run,
)
from cflows_ray.sweep.run_config import SETTINGS, RunConfig

RUN = RunConfig(workload="saddle_2d", rule="rmsprop", lr=0.2, steps=50)
GRID = Grid(workload="saddle_2d", rule="gradient_descent", lrs=(0.1, 0.2))
SWEEP = SweepConfig(name="example", grids=(GRID,), seeds=(0, 1), steps=50)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": -0.1}, "lr must be > 0, got -0.1"),
        ({"lr": 0}, "lr must be > 0, got 0"),
        ({"lr": "fast"}, "lr must be > 0, got 'fast'"),
        ({"lr": True}, "lr must be > 0, got True"),
        ({"lr": float("nan")}, "lr must be > 0, got nan"),
        ({"lr": float("inf")}, "lr must be > 0, got inf"),
        ({"workload": "nope"}, "workload must be one of .*, got 'nope'"),
        ({"workload_options": {"nope": 1}}, "option 'nope' is unknown to workload 'saddle_2d'"),
        ({"workload_options": {"c": object()}}, "workload_options must be numbers"),
        ({"workload_options": 3}, "workload_options must be a mapping, got 3"),
        ({"criterion": "hinge"}, "criterion must be one of .*'mse'.*, got 'hinge'"),
        ({"rule": "sgd"}, "rule must be one of .*'rmsprop'.*, got 'sgd'"),
        ({"rule": "gradient_descent", "beta2": 0.9}, "beta2 must be left out for gradient_descent"),
        ({"beta2": 1.0}, "beta2 must be > 0 and < 1, got 1.0"),
        ({"eps": -1e-8}, "eps must be > 0, got -1e-08"),
        ({"eps": 0}, "eps must be > 0, got 0"),
        ({"beta2": 0.15}, r"beta2 must be > h / \(1 \+ h\) = 0.2, .*, got 0.15"),
        ({"bias_correction": "yes"}, "bias_correction must be True or False, got 'yes'"),
        ({"schedule": "linear"}, "schedule must be .*, got 'linear'"),
        ({"schedule": "cosine:0"}, "schedule must be .*, got 'cosine:0'"),
        ({"schedule": "cosine:10:2"}, "schedule must be .*, got 'cosine:10:2'"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"seed": 0.5}, "seed must be an integer >= 0, got 0.5"),
        ({"flows": ("central", "orbital")}, "flows must be one of .*, got 'orbital'"),
        ({"flows": ()}, r"flows must be a non-empty sequence, got \(\)"),
        ({"flows": "central"}, "flows must be a sequence, got 'central'"),
        ({"steps": 0}, "steps must be an integer >= 1, got 0"),
        ({"warmup": -1}, "warmup must be an integer >= 0, got -1"),
        ({"substeps": 0}, "substeps must be an integer >= 1, got 0"),
        ({"scheme": "heun"}, "scheme must be one of .*, got 'heun'"),
        ({"stable_scheme": "rkc"}, "stable_scheme must be one of .*, got 'rkc'"),
        (
            {"scheme": "extrapolated", "substeps": 3},
            "substeps must be even for the scheme 'extrapolated', got 3",
        ),
        ({"num_eigs": 0}, "num_eigs must be an integer >= 1, got 0"),
        ({"record_every": 0}, "record_every must be an integer >= 1, got 0"),
        ({"dtype": "bfloat16"}, "dtype must be one of .*, got 'bfloat16'"),
    ],
)
def test_bad_runs_are_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}") as info:
        dataclasses.replace(RUN, **changes)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Grid("saddle_2d", "rmsprop", lrs=(0.1, -0.1)),
            "lrs must be > 0, got -0.1",
        ),
        (lambda: Grid("saddle_2d", "rmsprop", lrs=0.1), "lrs must be a sequence, got 0.1"),  # type: ignore[arg-type]
        (lambda: Grid("saddle_2d", "rmsprop", lrs=(0.1, 0.1)), "lrs must be free of repetitions"),
        (lambda: dataclasses.replace(SWEEP, seeds=(0, 0)), "seeds must be free of repetitions"),
        (lambda: dataclasses.replace(SWEEP, name="a b"), "name must be letters, .* got 'a b'"),
        (lambda: dataclasses.replace(SWEEP, name="../x"), "name must be letters, .* got '../x'"),
        (lambda: dataclasses.replace(SWEEP, grids=()), r"grids must be a non-empty sequence"),
        (lambda: Execution(workers=0), "workers must be an integer >= 1, got 0"),
        (lambda: Execution(pack=0), "pack must be an integer >= 1, got 0"),
        (lambda: Execution(gpus_per_run=1.5), "gpus_per_run must be a fraction below 1 or a whole"),
        (lambda: Execution(cpus_per_run=0), "cpus_per_run must be > 0, got 0"),
        (lambda: Execution(chunk_steps=0), "chunk_steps must be an integer >= 1, got 0"),
        (lambda: Execution(storage=""), "storage must be a folder or URI, got ''"),
    ],
)
def test_bad_sweeps_are_refused_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}") as info:
        make()
    assert "\n" not in str(info.value)


class Counted(int):
    """A number that counts how often it is compared."""

    compared = 0
    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return int(self) == other


def test_a_repetition_among_many_values_is_found_without_comparing_all_pairs() -> None:
    seeds = [*map(Counted, range(2000)), Counted(7)]
    with pytest.raises(ConfigError, match=r"^seeds must be free of repetitions, got '7'$"):
        sequence("seeds", seeds)
    assert Counted.compared < 3 * len(seeds)
    with pytest.raises(ConfigError, match=r"^pairs must be free of repetitions, got '\[1, 2\]'$"):
        sequence("pairs", [[1, 2], [3], [1, 2]])  # no hash


def test_a_run_that_occurs_twice_is_refused() -> None:
    other = Grid(workload="saddle_2d", rule="gradient_descent", lrs=(0.2, 0.3))
    with pytest.raises(ConfigError, match=r"^grids must not give a run twice, got twice .*lr=0.2"):
        dataclasses.replace(SWEEP, grids=(GRID, other))


def test_the_run_id_is_a_hash_of_the_whole_configuration() -> None:
    same = RunConfig(**json.loads(json.dumps(RUN.to_json())))
    assert same == RUN
    assert same.run_id == RUN.run_id
    changes: dict[str, Any] = {
        "workload": "digits_mlp",
        "rule": "scalar_rmsprop",
        "lr": 0.3,
        "criterion": "cross_entropy",
        "workload_options": {"c": 0.1},
        "beta2": 0.9,
        "eps": 1e-6,
        "bias_correction": True,
        "momentum": 0.5,
        "weight_decay": 0.1,
        "schedule": "cosine:10",
        "seed": 1,
        "flows": ("central",),
        "warmup": 1,
        "steps": 51,
        "substeps": 2,
        "scheme": "extrapolated",
        "stable_scheme": "euler",
        "tolerance": 0.1,
        "num_eigs": 2,
        "record_every": 2,
        "dtype": "float64",
        "target_windows": ("5", "loop"),
        "restart_every": 10,
        "seed_floor": "fraction",
        "seed_roundings": 1.0,
        "seed_fraction": 0.01,
        "rod_rank": 3,
        "covariance_rank": 3,
        "alternating_substeps": 8,
        "edge_substeps": 8,
        "rod_substeps": 8,
        "covariance_substeps": 8,
        "corrected_substeps": 8,
        "corrected_sharpness_limit": 10.0,
    }
    assert set(changes) == set(RUN.to_json())
    cross_entropy = {"workload": "digits_mlp"}  # the saddle has no criterion but its own
    ids = {RUN.run_id}
    for name, value in changes.items():
        extra = cross_entropy if name == "criterion" else {}
        ids.add(dataclasses.replace(RUN, **{**extra, name: value}).run_id)
    assert len(ids) == 1 + len(changes)


def test_equal_configurations_have_equal_ids() -> None:
    """Defaults written out, orders and number types do not make another run."""
    spelled = dataclasses.replace(RUN, beta2=0.99, eps=1e-8, bias_correction=False)
    assert spelled.run_id == RUN.run_id
    assert dataclasses.replace(RUN, lr=np.float64(0.2), steps=np.int64(50)).run_id == RUN.run_id
    swapped = dataclasses.replace(RUN, flows=("central", "stable", "midpoint"))
    assert swapped.run_id == RUN.run_id
    a = dataclasses.replace(RUN, workload_options={"c": 0.1, "y0": 9.0})
    b = dataclasses.replace(RUN, workload_options={"y0": 9.0, "c": 0.1})
    assert a.run_id == b.run_id


def test_the_run_id_never_changes_by_accident() -> None:
    """A changed id would run every finished sweep again: say so in the changelog if it must be."""
    euler = dataclasses.replace(RUN, scheme="euler", stable_scheme="euler")
    assert euler.run_id == "77bf47da69e6b90a"  # also where it was made without a scheme
    without = {name: value for name, value in euler.to_json().items() if "scheme" not in name}
    assert RunConfig(**without) == euler
    assert RunConfig("saddle_2d", "rmsprop", 0.2, steps=50, scheme="euler") == euler
    assert dataclasses.replace(RUN, scheme="adaptive") == RUN
    assert RUN.run_id == "71bd45ba04cd83aa"
    assert dataclasses.replace(RUN, scheme="extrapolated").run_id not in (RUN.run_id, euler.run_id)
    assert dataclasses.replace(RUN, tolerance=1e-3).run_id != RUN.run_id


def test_substeps_given_to_a_study_that_names_no_scheme_are_fixed_ones() -> None:
    def schemes(sweep: SweepConfig, **given: int) -> set[tuple[str, int]]:
        return {(run.scheme, run.substeps) for run in apply(sweep, Options(given=given)).runs}

    assert schemes(SWEEP) == {("adaptive", 4)}
    assert schemes(SWEEP, substeps=8) == {("euler", 8)}
    assert schemes(dataclasses.replace(SWEEP, scheme="adaptive"), substeps=8) == {("adaptive", 8)}
    own = dataclasses.replace(GRID, more={"substeps": 2})
    assert schemes(dataclasses.replace(SWEEP, grids=(own,))) == {("euler", 2)}


def test_execution_does_not_enter_the_run_id() -> None:
    other = dataclasses.replace(SWEEP, name="other", execution=Execution(chunk_steps=3, workers=2))
    assert [run.run_id for run in other.runs] == [run.run_id for run in SWEEP.runs]


def test_the_row_has_the_columns_of_the_table() -> None:
    own = {"sweep", "num_params", "status", "status_detail", "wall_s", "compile_s", "device"}
    own |= {"versions", "commit", "data", "doubts"}
    assert set(RUN.row()) == set(runs_schema().names) - own


def test_settings_are_those_of_a_paired_run() -> None:
    from cflows_ray.paired import PairedOptions

    settings = {name: getattr(RUN, name) for name in SETTINGS}
    options = PairedOptions(**settings)
    assert {name: getattr(options, name) for name in SETTINGS} == settings


def test_any_hyperparameter_can_be_swept() -> None:
    grid = Grid("saddle_2d", "rmsprop", lrs=(0.1, 0.2), beta2=(0.9, 0.99), eps=1e-6)
    sweep = SweepConfig(name="x", grids=(grid,), seeds=(0, 1), steps=50)
    found = [(run.lr, run.hyper["beta2"], run.seed) for run in sweep.runs]
    assert found == [(lr, b, s) for lr in (0.1, 0.2) for b in (0.9, 0.99) for s in (0, 1)]
    assert {run.hyper["eps"] for run in sweep.runs} == {1e-6}
    with pytest.raises(ConfigError, match=r"^beta2 must be > 0 and < 1, got 1.0$"):
        SweepConfig(name="x", grids=(dataclasses.replace(grid, beta2=(0.9, 1.0)),))
    with pytest.raises(ConfigError, match=r"^beta2 must be left out for gradient_descent, got 0.9"):
        SweepConfig(name="x", grids=(dataclasses.replace(GRID, beta2=(0.9, 0.99)),))
    with pytest.raises(TypeError, match="unexpected keyword argument 'beta3'"):
        dataclasses.replace(grid, beta3=0.9)


def test_hyperparameters_on_the_command_line() -> None:
    grids = (Grid("saddle_2d", "rmsprop", lrs=(0.1,)), GRID)
    sweep = dataclasses.replace(SWEEP, grids=grids)
    changed = apply(sweep, parse(sweep, ["--beta2", "0.9", "0.99", "--bias-correction", "True"]))
    rmsprop = [run for run in changed.runs if run.rule == "rmsprop"]
    assert {(run.hyper["beta2"], run.hyper["bias_correction"]) for run in rmsprop} == {
        (0.9, True),
        (0.99, True),
    }
    others = [run.run_id for run in changed.runs if run.rule == "gradient_descent"]
    assert others == [run.run_id for run in SWEEP.runs]
    with pytest.raises(ConfigError, match="options must be among those that --help lists"):
        parse(SWEEP, ["--beta2", "0.9"])  # no grid's rule has it
    with pytest.raises(ConfigError, match=r"^beta2 must be numbers with spaces between them, got"):
        parse(sweep, ["--beta2", "much"])


def test_importing_loads_neither_jax_nor_ray() -> None:
    code = (
        "import sys, cflows_ray, cflows_ray.schema, cflows_ray.sweep, cflows_ray.status;"
        "print(sorted({'jax', 'ray', 'flax', 'orbax'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# The command line ---------------------------------------------------------------------------


def change(*arguments: str) -> SweepConfig:
    return apply(SWEEP, parse(SWEEP, list(arguments)))


def test_overrides() -> None:
    sweep = change(
        *("--lrs", "0.3", "0.4", "--seeds", "7", "--steps", "9", "--flows", "central"),
        *("--storage", "s3://b/f", "--workers", "3", "--gpus", "0.5", "--name", "n"),
        *("--pack", "8"),
    )
    assert {(run.lr, run.seed, run.steps, run.flows) for run in sweep.runs} == {
        (0.3, 7, 9, ("central",)),
        (0.4, 7, 9, ("central",)),
    }
    assert sweep.name == "n"
    execution = sweep.execution
    assert (execution.storage, execution.workers, execution.gpus_per_run) == ("s3://b/f", 3, 0.5)
    assert execution.pack == 8


def test_nothing_given_changes_nothing() -> None:
    assert change() == SWEEP
    assert change("--") == SWEEP


def test_overrides_hold_for_grids_with_their_own_values() -> None:
    grids = (dataclasses.replace(GRID, steps=10, seeds=(5,)),)
    sweep = dataclasses.replace(SWEEP, grids=grids)
    assert {run.steps for run in apply(sweep, Options(steps=20)).runs} == {20}
    assert {run.seed for run in apply(sweep, Options(seeds=(3,))).runs} == {3}


def test_only_and_smoke() -> None:
    grids = (GRID, dataclasses.replace(GRID, rule="rmsprop"))
    sweep = dataclasses.replace(SWEEP, grids=grids)
    assert {run.rule for run in apply(sweep, Options(only=("rmsprop",))).runs} == {"rmsprop"}
    both = apply(sweep, Options(only=("saddle_2d", "rmsprop")))
    assert {run.rule for run in both.runs} == {"rmsprop"}
    both = apply(sweep, Options(only=("gradient_descent", "rmsprop", "mse")))
    assert len(both.runs) == len(sweep.runs)
    other = dataclasses.replace(GRID, rule="rmsprop", criterion="cross_entropy")
    mixed = dataclasses.replace(SWEEP, grids=(GRID, other))
    with pytest.raises(ConfigError, match="only must be a combination that some grid has"):
        mixed.only(("gradient_descent", "cross_entropy"))
    smoke = apply(sweep, Options(smoke_test=True))
    assert smoke.name == "example-smoke"
    assert [(run.rule, run.steps) for run in smoke.runs] == [
        ("gradient_descent", 20),
        ("rmsprop", 20),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lrs", "-0.1"], "lrs must be > 0, got -0.1"),
        (
            ["--lrs", "0.1", "fast"],
            "lrs must be numbers with spaces between them, got '0.1', 'fast'",
        ),
        (["--lrs"], "lrs must be a non-empty sequence, got ()"),
        (["--steps", "0"], "steps must be an integer >= 1, got 0"),
        (["--steps", "1.5"], "steps must be an integer, got '1.5'"),
        (["--steps"], "steps must be an integer, got nothing"),
        (["--flows", "orbital"], "flows must be one of ['midpoint', 'stable', 'central', "),
        (["--only", "adam"], "only must be one of ["),
        (["--nope", "3"], "options must be among those that --help lists, got --nope, 3"),
        (
            ["--seed", "3"],
            "options must be among those that --help lists, got --seed, 3 (perhaps -",
        ),
        (["--seeds", "0,1"], "seeds must be integers with spaces between them, got '0,1'"),
        (["--seeds", str(2**63)], f"seeds must be <= {2**63 - 1}, got {2**63}"),
        (["--steps", str(2**31)], f"steps must be <= {2**31 - 1}, got {2**31}"),
        (["--scheme", "extrapolated", "--substeps", "3"], "substeps must be even for the scheme"),
        (["--dtype", "half"], "dtype must be one of ['float32', 'float64'], got 'half'"),
        (["--storage", "ftp://x"], "storage must be a folder or URI, got 'ftp://x'"),
    ],
)
def test_mistakes_on_the_command_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    """One line, exit code 2, nothing started."""
    code = (
        "from cflows_ray.sweep.cli import main\n"
        "from cflows_ray.sweep.config import Grid, SweepConfig\n"
        "grid = Grid(workload='saddle_2d', rule='gradient_descent', lrs=(0.1,))\n"
        "main(SweepConfig(name='x', grids=(grid,)))"
    )
    command = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {message}")
    assert result.stderr.count("\n") == 1
    assert result.returncode == 2
    assert not list(tmp_path.iterdir())


def test_help_and_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cflows_ray.sweep.cli import main

    with pytest.raises(SystemExit) as stop:
        main(SWEEP, ["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in ("--lrs", "--seeds", "--storage", "--smoke-test", "--dry-run", "--retry-failed"):
        assert option in text
    with pytest.raises(SystemExit) as stop:
        main(SWEEP, ["--dry-run", "--storage", str(tmp_path)])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "4 runs: none done before, 4 new" in text
    head, row = (line.split() for line in text.splitlines()[-2:])
    words = ["workload", "criterion", "rule", "learning", "rates", "seeds", "runs", "new"]
    assert head == words
    assert row == [*("saddle_2d", "mse", "gradient_descent"), *("0.1,", "0.2", "0,", "1", "4", "4")]
    with pytest.raises(SystemExit):
        main(SWEEP, ["--dry-run", "--verbose", "--storage", str(tmp_path)])
    text = capsys.readouterr().out
    assert all(f"would run: {run.run_id}" in text for run in SWEEP.runs)
    assert not list(tmp_path.iterdir())


# Placement ----------------------------------------------------------------------------------

LAPTOP = {"CPU": 8.0, "memory": 16.0 * 2**30}
SERVER = {"CPU": 16.0, "GPU": 4.0, "memory": 64.0 * 2**30}


def test_a_run_gets_a_gpu_where_there_is_one() -> None:
    assert resources_per_run(Execution(), [LAPTOP]) == {"cpu": 1.0}
    assert resources_per_run(Execution(), [LAPTOP, SERVER]) == {"cpu": 1.0, "gpu": 1.0}
    assert resources_per_run(Execution(gpus_per_run=0), [SERVER]) == {"cpu": 1.0}
    asked = Execution(gpus_per_run=0.25, memory_gb_per_run=2)
    assert resources_per_run(asked, [SERVER]) == {"cpu": 1.0, "gpu": 0.25, "memory": 2.0 * 2**30}


def test_what_fits() -> None:
    check_fits({"cpu": 1.0, "gpu": 1.0}, [LAPTOP, SERVER])
    assert most_at_once({"cpu": 1.0, "gpu": 1.0}, [LAPTOP, SERVER]) == 4
    assert most_at_once({"cpu": 1.0, "gpu": 0.25}, [SERVER, SERVER]) == 32
    message = "got 1 CPU, 5 GPU; there is: 16 CPU, 4 GPU, 64.0 GiB memory; 8 CPU, 0 GPU"
    with pytest.raises(ConfigError, match=message):
        check_fits({"cpu": 1.0, "gpu": 5.0}, [LAPTOP, SERVER])
    with pytest.raises(ConfigError, match=r"32.0 GiB memory; there is"):
        check_fits({"cpu": 1.0, "memory": 32.0 * 2**30}, [LAPTOP])


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "x:y"])
def test_a_cluster_that_does_not_answer(address: str) -> None:
    with pytest.raises(ConfigError, match="address must be that of a running Ray cluster, got"):
        check_reachable(address)


def test_packs_are_for_the_cluster_as_it_may_grow() -> None:
    """The one of cluster.yaml when nothing runs yet: a head without CPUs, up to 8 GPUs."""
    resources = {"cpu": 1.0, "gpu": 1.0}
    at_once = most_at_once(resources, [{"CPU": 0.0}], [{"CPU": 4.0, "GPU": 1.0}] * 8)
    assert at_once == 8
    assert largest_pack(resources, 50, at_once) == 7
    assert most_at_once(resources, [SERVER, SERVER], []) == 8


def test_a_cluster_that_grows_counts_what_it_can_start(tmp_path: Path) -> None:
    assert autoscaling_nodes(tmp_path / "none") == []
    bootstrap = tmp_path / "ray_bootstrap_config.yaml"
    bootstrap.write_text(
        "max_workers: 4\n"
        "available_node_types:\n"
        "  head: {resources: {CPU: 2}, max_workers: 0}\n"
        "  worker: {resources: {CPU: 8, GPU: 1}, max_workers: 3}\n"
        "  other: {resources: {CPU: 16}}\n"
    )
    nodes = autoscaling_nodes(bootstrap)
    gpu, cpu = {"CPU": 8, "GPU": 1}, {"CPU": 16}
    assert nodes == [gpu, cpu, gpu, cpu]
    assert resources_per_run(Execution(), nodes) == {"cpu": 1.0, "gpu": 1.0}


def test_another_seed_is_as_if_made_anew() -> None:
    """Sweeps of 100,000 runs take it for all seeds but the first."""
    run = RunConfig(workload="saddle_2d", rule="rmsprop", lr=0.1, beta2=0.9, seed=3, steps=50)
    other = RunConfig(workload="saddle_2d", rule="rmsprop", lr=0.1, beta2=0.9, seed=4, steps=50)
    assert run.with_seed(4) == other
    assert run.with_seed(4).run_id == other.run_id != run.run_id
    with pytest.raises(ConfigError, match="seed must be"):
        run.with_seed(-1)
