"""What the package may import, and the examples in its docstrings."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import analysis

MODULES = sorted(m.name for m in pkgutil.iter_modules(analysis.__path__))


def test_neither_jax_nor_ray_is_imported() -> None:
    names = ", ".join(f"analysis.{m}" for m in MODULES if m != "__main__")
    code = (
        f"import sys, {names}, analysis.__main__\n"
        "loaded = {m.partition('.')[0] for m in sys.modules}\n"
        "bad = loaded & {'jax', 'jaxlib', 'ray', 'flax', 'optax', 'orbax'}\n"
        "sys.exit(f'imported {sorted(bad)}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [m for m in MODULES if m != "__main__"])
def test_docstring_examples(name: str, example_sweep: Path) -> None:
    module = importlib.import_module(f"analysis.{name}")
    public = {n: getattr(analysis, n) for n in analysis.__all__}
    names = public | vars(module) | {"example_sweep": example_sweep}
    import numpy as np

    failed, tried = 0, 0
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder().find(module, globs={"np": np} | names):
        result = runner.run(test)
        failed, tried = failed + result.failed, tried + result.attempted
    assert failed == 0
    if name in ("tables", "scoring", "metrics", "smoothing"):
        assert tried > 0, "no example was run"


def test_every_public_metric_function_has_an_example() -> None:
    from analysis import intervals, metrics, survival

    for module in (metrics, intervals, survival):
        for name, value in vars(module).items():
            if callable(value) and getattr(value, "__module__", "") == module.__name__:
                is_function = not name.startswith("_") and not isinstance(value, type)
                if is_function:
                    assert ">>>" in (value.__doc__ or ""), f"{module.__name__}.{name}"


def test_every_public_function_has_an_example() -> None:
    functions = [n for n in analysis.__all__ if inspect.isfunction(getattr(analysis, n))]
    assert {"load", "accuracy", "summarize", "compare"} < set(functions)
    assert len([n for n in functions if n.startswith("plot_")]) == 8
    for name in functions:
        assert ">>>" in (getattr(analysis, name).__doc__ or ""), name
