"""A small sweep with known errors, shared by the analysis tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `synthetic`, whatever the import mode

mpl.use("Agg")

from synthetic import example_runs, write_sweep


@pytest.fixture(scope="session")
def example_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a sweep with known errors; tests must not change it."""
    return write_sweep(tmp_path_factory.mktemp("results"), example_runs())


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    import matplotlib.pyplot as plt

    plt.close("all")
