"""What the package may import, its public names, and the examples in its docstrings."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import analysis

MODULES = sorted(m.name for m in pkgutil.walk_packages(analysis.__path__, "analysis."))
WITHOUT_EXAMPLES = {
    "analysis.__main__", "analysis.draw", "analysis.draw.figure_set", "analysis.infer",
    "analysis.measure", "analysis.measure.metrics.edge", "analysis.measure.metrics.horizon",
    "analysis.measure.metrics.loss_and_curvature", "analysis.measure.metrics.outputs",
    "analysis.measure.metrics.solvers", "analysis.measure.metrics.variance",
    "analysis.measure.scoring", "analysis.read", "analysis.read.file_checks",
    "analysis.read.results", "analysis.read.same_runs", "analysis.read.trace", "analysis.report",
    "analysis.report.cells", "analysis.report.sections", "analysis.report.sections.comparison",
    "analysis.report.sections.failures", "analysis.report.sections.figures",
    "analysis.report.precision", "analysis.report.sections.nearest",
    "analysis.report.sections.summary",
    "analysis.report.terminal", "analysis.report.write",
}  # fmt: skip


def test_neither_jax_nor_ray_is_imported() -> None:
    code = (
        f"import sys, {', '.join(MODULES)}\n"
        "loaded = {m.partition('.')[0] for m in sys.modules}\n"
        "bad = loaded & {'jax', 'jaxlib', 'ray', 'flax', 'optax', 'orbax'}\n"
        "sys.exit(f'imported {sorted(bad)}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str, example_sweep: Path) -> None:
    module = importlib.import_module(name)
    public = {n: getattr(analysis, n) for n in analysis.__all__}
    names = {"np": np} | public | vars(module) | {"example_sweep": example_sweep}
    failed, tried = 0, 0
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder().find(module, globs=names):
        result = runner.run(test)
        failed, tried = failed + result.failed, tried + result.attempted
    assert failed == 0
    assert (tried == 0) == (name in WITHOUT_EXAMPLES), f"{tried} examples"


@pytest.mark.parametrize(
    "name",
    ["analysis.measure.formulas", "analysis.measure.smoothing", "analysis.measure.metrics",
     "analysis.infer.intervals", "analysis.infer.survival", "analysis.infer.trends"],
)  # fmt: skip
def test_every_public_function_of_arrays_has_an_example(name: str) -> None:
    module = importlib.import_module(name)
    functions = [
        (public, value)
        for public, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == name and not public.startswith("_")
    ]
    assert functions
    for public, value in functions:
        assert ">>>" in (value.__doc__ or ""), public


def test_every_public_function_has_an_example() -> None:
    functions = [n for n in analysis.__all__ if inspect.isfunction(getattr(analysis, n))]
    assert {"load", "accuracy", "summarize", "compare"} < set(functions)
    assert len([n for n in functions if n.startswith("plot_")]) == 11
    for name in functions:
        assert ">>>" in (getattr(analysis, name).__doc__ or ""), name


def test_public_names_of_before_are_still_there() -> None:
    names = {
        "METRICS", "Metric", "Results", "ResultsError", "Study", "accuracy",
        "bandwidth_sensitivity", "compare", "covariance_fit", "covariance_points", "load",
        "lr_trend", "plot_accuracy", "plot_covariance", "plot_distance", "plot_distance_spread",
        "plot_horizons", "plot_loss", "plot_sharpness", "plot_variance", "study", "summarize",
    }  # fmt: skip
    assert names <= set(analysis.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'metrics'"):
        _ = analysis.metrics
