"""The examples in the docstrings are run, wherever they stand, and none of them gets lost.

python -m tests.test_docstrings      # note in examples.txt what has an example now
"""

from __future__ import annotations

import doctest
import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.test_architecture import FILES, module_of

NOTED = Path(__file__).parent / "examples.txt"
MODULES = [module_of(f) for f in FILES if ">>>" in f.read_text() and f.name != "__main__.py"]


def examples(module: str, **more: Any) -> list[doctest.DocTest]:
    """Return the docstrings of a module that have examples, which see the module's own names."""
    loaded = importlib.import_module(module)
    found = doctest.DocTestFinder().find(loaded, globs={**more, **vars(loaded)})
    return [test for test in found if test.examples]


def with_examples() -> list[str]:
    """Return the names of all functions, classes and modules that have examples.

    Without the module's name, so that a move from file to file changes nothing.
    """
    names = {test.name.removeprefix(f"{m}.") for m in MODULES for test in examples(m)}
    return sorted(names)


@pytest.fixture(scope="module")
def for_analysis(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the examples of `analysis` take as given: a sweep, NumPy and the public names."""
    import analysis

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent / "analysis"))
        from synthetic import example_runs, write_sweep
    public = {name: getattr(analysis, name) for name in analysis.__all__}
    sweep = write_sweep(tmp_path_factory.mktemp("results"), example_runs())
    return {**public, "np": np, "example_sweep": sweep}


@pytest.mark.parametrize("module", MODULES)
def test_examples_are_true(module: str, for_analysis: dict[str, Any]) -> None:
    given = for_analysis if module.startswith("analysis") else {}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    tests = examples(module, **given)
    assert tests, "the examples of this file belong to nothing that can be imported"
    for test in tests:
        runner.run(test)
    assert runner.failures == 0
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def test_what_had_an_example_has_one_still() -> None:
    lost = set(NOTED.read_text().split()) - set(with_examples())
    assert not lost, f"without example: {sorted(lost)}; or run python -m tests.test_docstrings"


if __name__ == "__main__":
    NOTED.write_text("\n".join([*with_examples(), ""]))
