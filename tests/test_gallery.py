"""docs/gallery.md: its code runs, block by block, and saves the figures that the page shows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))  # for `make_gallery`
sys.path.insert(0, str(Path(__file__).parent / "analysis"))  # for `synthetic`

import make_gallery
from synthetic import study_runs, write_sweep


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small tables in place of the quickstart's."""
    return write_sweep(tmp_path_factory.mktemp("results"), study_runs(), name="small")


def test_the_code_draws_what_the_page_shows(results: Path, tmp_path: Path) -> None:
    files = make_gallery.draw(results, tmp_path / "figures")
    assert len(files) == 5
    assert all(file.stat().st_size > 1_000 for file in files)


def test_the_figures_are_there_and_small() -> None:
    kept = {file.name: file.stat().st_size for file in make_gallery.FIGURES.glob("gallery-*.png")}
    assert set(kept) == set(make_gallery.shown())
    assert max(kept.values()) <= make_gallery.MAX_BYTES


SAVES = """```python
import matplotlib.pyplot as plt
figure, ax = plt.subplots()
ax.plot([1, 2])
figure.savefig("gallery-a.png")
```
"""
SHOWS = "![a](figures/gallery-a.png)\n"
NEEDS_THE_FIRST = "```python\nax.plot([1, 2])\n```\n"


@pytest.mark.parametrize(
    ("page", "complaint", "says"),
    [
        (SAVES, ValueError, "must show"),
        (SHOWS, ValueError, "must show"),
        (SAVES.replace("[1, 2]", "[]") + SHOWS, ValueError, "page.md, line 2: a panel is empty"),
        (SAVES + NEEDS_THE_FIRST + SHOWS, NameError, "ax"),
    ],
    ids=["not shown", "not saved", "empty", "not complete"],
)
def test_a_page_that_is_not_true_is_an_error(
    page: str, complaint: type[Exception], says: str, results: Path, tmp_path: Path
) -> None:
    file = tmp_path / "page.md"
    file.write_text(page)
    with pytest.raises(complaint, match=says):
        make_gallery.draw(results, tmp_path / "figures", file)


def test_a_large_figure_is_an_error(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "page.md"
    file.write_text(SAVES + SHOWS)
    assert make_gallery.draw(results, tmp_path / "figures", file)[0].stat().st_size < 80_000
    monkeypatch.setattr(make_gallery, "MAX_BYTES", 100)
    with pytest.raises(ValueError, match=r"gallery-a\.png must be at most 100 bytes"):
        make_gallery.draw(results, tmp_path / "figures", file)
