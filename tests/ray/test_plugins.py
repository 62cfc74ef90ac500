"""One file to add anything: a rule, a flow, a workload and a metric from outside the package.

They are registered here, from files that Ray's workers cannot import, and go through a sweep to the
tables, the analysis and the report. No file of the package knows them.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.measure.metrics import METRICS
from analysis.report import accuracy_text, write_report
from cflows_ray.flows import FLOWS
from cflows_ray.rules import RULES
from cflows_ray.sweep import Execution, Grid, RunConfig, SweepConfig
from cflows_ray.sweep.options import apply, parse
from cflows_ray.sweep.plugins import REGISTRIES, pickled
from cflows_ray.workloads import WORKLOADS, data_fingerprint
from tests.ray.conftest import Launched

STRENGTHS = (0.5, 1.0)
LR, SEEDS, STEPS = 0.1, (0, 1), 12
STEEPNESS = 2.0


@pytest.fixture(scope="module")
def toys() -> Iterator[None]:
    """Register one plug-in of each kind, and take them back afterwards."""
    from tests.plugins.loss_gap import loss_gap

    RULES.register("braked_descent", "tests.plugins.braked_descent:BrakedDescent")
    FLOWS.register("standstill", "tests.plugins.standstill:STANDSTILL")
    WORKLOADS.register("bowl", "tests.plugins.bowl:BOWL")
    analysis.register_metric(loss_gap)
    yield
    RULES.remove("braked_descent")
    FLOWS.remove("standstill")
    WORKLOADS.remove("bowl")
    METRICS.remove("loss_gap")


@pytest.fixture(scope="module")
def sweep(toys: None, tmp_path_factory: pytest.TempPathFactory) -> SweepConfig:  # noqa: ARG001
    grid = Grid(
        workload="bowl",
        rule="braked_descent",
        lrs=(LR,),
        workload_options={"steepness": STEEPNESS},
        strength=STRENGTHS,
    )
    return SweepConfig(
        name="toys",
        grids=(grid,),
        seeds=SEEDS,
        steps=STEPS,
        warmup=2,
        flows=("stable", "standstill"),
        execution=Execution(storage=str(tmp_path_factory.mktemp("toys")), chunk_steps=5),
    )


@pytest.fixture(scope="module")
def launched(sweep: SweepConfig, cluster: None, compile_cache: str) -> Launched:  # noqa: ARG001
    from tests.ray.conftest import launch_sweep

    execution = dataclasses.replace(sweep.execution, compile_cache=compile_cache)
    return launch_sweep(dataclasses.replace(sweep, execution=execution))


def test_configuration_and_command_line_follow_from_the_declaration(sweep: SweepConfig) -> None:
    assert [run.hyper for run in sweep.runs] == [{"strength": s} for s in STRENGTHS for _ in SEEDS]
    assert len({run.run_id for run in sweep.runs}) == len(sweep.runs)
    kinds = {run.kind for run in sweep.runs}
    assert len(kinds) == 1, "a traced hyperparameter compiles nothing"
    changed = apply(sweep, parse(sweep, ["--strength", "2", "3", "4", "--seeds", "7"]))
    assert [run.hyper["strength"] for run in changed.runs] == [2.0, 3.0, 4.0]
    with pytest.raises(ValueError, match="strength must be > 0, got -1"):
        RunConfig("bowl", "braked_descent", lr=LR, strength=-1)
    with pytest.raises(ValueError, match="strength must be left out for rmsprop, got 1"):
        RunConfig("bowl", "rmsprop", lr=LR, strength=1.0)
    with pytest.raises(ValueError, match="option 'depth' is unknown to workload 'bowl'"):
        RunConfig("bowl", "braked_descent", lr=LR, workload_options={"depth": 1})


@pytest.mark.ray
def test_the_sweep_runs_to_its_tables(launched: Launched, sweep: SweepConfig) -> None:
    assert not launched.outcome.lost, launched.text
    runs = pd.read_parquet(launched.folder / "runs")
    assert set(runs["run_id"]) == {run.run_id for run in sweep.runs}
    assert set(runs["status"]) == {"finished"}, runs["status_detail"].tolist()
    assert sorted(runs["strength"]) == sorted(STRENGTHS * len(SEEDS))
    assert set(runs["workload"]) == {"bowl"}
    assert runs["beta2"].isna().all()
    assert set(runs["data"]) == {data_fingerprint("bowl", {"steepness": STEEPNESS})}

    steps = pd.read_parquet(launched.folder / "steps")
    assert set(steps["process"]) == {"discrete", "stable", "standstill"}
    of_flow = steps["process"] == "standstill"
    assert steps.loc[of_flow, "missed"].notna().all()
    assert steps.loc[~of_flow, "missed"].isna().all()


@pytest.mark.ray
def test_the_numbers_are_those_of_the_plug_ins(launched: Launched, sweep: SweepConfig) -> None:
    """Gradient descent on the bowl by hand: w <- (1 - η steepness i / strength) w, axis by axis."""
    steps = pd.read_parquet(launched.folder / "steps")
    curvature = STEEPNESS * np.arange(1.0, 4.0)
    for run in sweep.runs:
        shrunk = 1.0 - LR * curvature / run.hyper["strength"]
        first = np.random.default_rng(run.seed).uniform(0.5, 1.5, 3) * shrunk**2  # two of warm-up
        path = first * shrunk ** np.arange(STEPS + 1)[:, None]
        mine = steps[steps["run_id"] == run.run_id].sort_values("step")
        discrete, still = (mine[mine["process"] == p] for p in ("discrete", "standstill"))
        np.testing.assert_allclose(
            discrete["train_loss"], 0.5 * (path**2 * curvature).sum(axis=1), rtol=1e-4
        )
        missed = np.linalg.norm(path - path[0], axis=1)
        np.testing.assert_allclose(still["missed"], missed, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(still["distance_to_discrete"], missed, rtol=1e-4, atol=1e-6)


@pytest.mark.ray
def test_the_analysis_groups_and_shows_them(launched: Launched, tmp_path: Path) -> None:
    results = analysis.load(str(launched.folder))
    found = analysis.study(results)
    frame = found.accuracy
    assert set(frame["flow"]) == {"stable", "standstill"}
    assert frame["loss_gap"].notna().all()
    # nothing was said of what to group by
    summary = analysis.summarize(frame, metrics=["loss_gap"])
    shown = summary[summary["flow"] == "standstill"]
    assert sorted(shown["strength"]) == list(STRENGTHS)
    assert set(shown["n"]) == {len(SEEDS)}

    given = {"bandwidth": found.bandwidth, "tolerance": found.tolerance}
    table = " ".join(accuracy_text(frame, results, **given).split())
    page = " ".join(write_report(found, tmp_path, command="made by a test").read_text().split())
    for text in (table, page):
        assert "Largest |flow&#x27;s loss" in text or "Largest |flow's loss" in text
        assert "standstill" in text
    assert "bowl · mse · braked_descent · strength=0.5" in table
    assert "Accuracy against strength" in page


CARRIED = """
import sys
from dataclasses import dataclass

sys.path.insert(0, {folder!r})
import beside
from cflows_ray.rules import RULES

@dataclass(frozen=True)
class Mine(beside.Base):
    pass

RULES.register("mine", Mine)
RULES.register("theirs", "beside:Base")
import ray.cloudpickle
from cflows_ray.sweep.plugins import pickled
open({file!r}, "wb").write(pickled(ray.cloudpickle))
"""

ARRIVED = """
import sys
import ray.cloudpickle
from cflows_ray.sweep.plugins import add_pickled
add_pickled(open({file!r}, "rb").read(), ray.cloudpickle)
from cflows_ray.sweep import RunConfig
for name in ("mine", "theirs"):
    print(RunConfig("saddle_2d", name, lr=0.5, strength=2.0).hyper, end=" ")
print("beside" in sys.modules, "jax" in sys.modules)
"""


def test_classes_of_a_script_and_of_a_file_beside_it_arrive(tmp_path: Path) -> None:
    """Neither `__main__` nor the file beside it can be imported where they arrive."""
    own = Path(__file__).parents[1] / "plugins" / "braked_descent.py"
    beside = tmp_path / "study"
    beside.mkdir()
    (beside / "beside.py").write_text(own.read_text().replace("BrakedDescent", "Base"))
    file = str(tmp_path / "plugins.pickle")
    for code, folder in ((CARRIED, beside), (ARRIVED, tmp_path)):
        text = code.format(folder=str(beside), file=file)
        command = [sys.executable, "-c", text]
        if code is CARRIED:
            (folder / "study.py").write_text(text)
            command = [sys.executable, "study.py"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert done.stdout.split("} ")[-1].split() == ["False", "False"]
    assert done.stdout.count("{'strength': 2.0}") == 2


def test_nothing_registered_is_nothing_carried(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray.cloudpickle

    for registry in REGISTRIES.values():
        monkeypatch.setattr(registry, "_added", {})
    assert pickled(ray.cloudpickle) == b""
    WORKLOADS.register("locked", threading.Lock())
    with pytest.raises(ValueError, match=r"plug-ins must be what can be pickled, got \['locked'\]"):
        pickled(ray.cloudpickle)


def test_the_data_of_a_plug_in_have_a_fingerprint(toys: None) -> None:  # noqa: ARG001
    one, other = (data_fingerprint("bowl", {"steepness": s}) for s in (1.0, 2.0))
    assert one
    assert one != other
