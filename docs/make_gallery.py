"""The figures of docs/gallery.md, drawn by the code that the page shows.

    make quickstart                                     # or: python sweeps/quickstart.py
    python docs/make_gallery.py results/quickstart      # writes docs/figures/gallery-*.png

Each of the page's blocks is run as it stands, as a program of its own, in an empty folder where
`results/quickstart` is the folder given, and `docs/data` the tables kept with the pages. What they
save is what the page shows.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import tempfile
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from page_code import blocks, run_blocks
from PIL import Image

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "gallery.md"
FIGURES = DOCS / "figures"
COLOURS = 128
"""Of a figure's palette: without one, a file is two to three times as large."""
MAX_BYTES = 80_000


def shown(page: Path = PAGE) -> list[str]:
    """Return the names of the figures that the page shows, in its order."""
    return re.findall(r"!\[[^\]]*\]\(figures/(gallery-[\w-]+\.png)\)", page.read_text())


def draw(results: Path, figures: Path, page: Path = PAGE) -> list[Path]:
    """Run the page's code on a results folder; return the figures, in the page's order.

    Raises `ValueError` where the code saves other figures than the page shows, an empty panel, or a
    large file.
    """
    names = shown(page)
    figures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "results").mkdir()
        (here / "docs").mkdir()
        (here / "results" / "quickstart").symlink_to(results.resolve())
        (here / "docs" / "data").symlink_to(DOCS / "data")
        with contextlib.chdir(here):
            for block in blocks(page.read_text()):
                run_blocks([block], page.name)
                _check_panels(f"{page.name}, line {block.line}")
        saved = sorted(file.name for file in here.glob("*.png"))
        if saved != sorted(names):
            raise ValueError(f"the page must show what its code saves, {saved}, got {names}")
        for name in names:
            _shrink(here / name, figures / name)
    return [figures / name for name in names]


def _check_panels(where: str) -> None:
    """Raise `ValueError` if a panel of the open figures has no line or dots; close the figures."""
    panels = [ax for number in plt.get_fignums() for ax in plt.figure(number).axes]
    plt.close("all")
    for ax in panels:
        if not any(np.isfinite(np.asarray(line.get_ydata(), float)).any() for line in ax.lines):
            raise ValueError(f"{where}: a panel is empty, {ax.get_title() or ax.get_ylabel()!r}")


def _shrink(source: Path, target: Path) -> None:
    """Copy a figure with few colours; what is then still too large for a repository is an error."""
    with Image.open(source) as picture:
        few = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(target, optimize=True)
    size = target.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{target.name} must be at most {MAX_BYTES} bytes, got {size}")


def main() -> None:
    """Draw the figures anew, and take away those that the page no longer shows."""
    parser = argparse.ArgumentParser(description="Draw the figures of docs/gallery.md.")
    parser.add_argument("results", type=Path, help="the quickstart's results: results/quickstart")
    mpl.use("Agg")
    files = draw(parser.parse_args().results, FIGURES)
    for old in set(FIGURES.glob("gallery-*.png")) - set(files):
        old.unlink()
    for file in files:
        print(f"written: {os.path.relpath(file)}, {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
