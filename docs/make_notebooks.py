"""The notebooks of docs/notebooks: executed, compared with what is stored, written anew.

    python docs/make_notebooks.py               # all
    python docs/make_notebooks.py first_look    # one
    python docs/make_notebooks.py --check       # writes nothing; 1 where an output has changed

A notebook is executed from its first cell to its last in a kernel of its own, in an empty folder
beside `data`, as in docs. An error in a cell is an error here. What is stored has no trace of when
and where it was made, and a picture is replaced only where one can see that it has changed, so that
a diff shows what changed.

Compared are the texts that cells print and return. A number with decimals may differ by one unit of
its last digit, because another processor rounds differently; other numbers and words must be the
same. Not compared are pictures and what goes to standard error; times have no place in a cell.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = Path(__file__).resolve().parent / "notebooks"
ROOT = NOTEBOOKS.parents[1]
SEEN = 1.0
"""Mean difference of pixels, of 255, from which on a picture is another."""
LIMIT_S = 600
"""For a cell: seconds of a busy machine."""
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def read(file: Path) -> nbformat.NotebookNode:
    """Read a notebook in the current format."""
    return nbformat.read(file, as_version=4)


def execute(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a copy with the outputs of a new kernel, stripped of times and places.

    Raises `nbclient.exceptions.CellExecutionError` where a cell raises.
    """
    fresh = nbformat.from_dict(notebook)
    with tempfile.TemporaryDirectory() as folder:
        own = {
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "CFLOWS_PROGRESS": "0",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "IPYTHONDIR": f"{folder}/ipython",  # no history in the home of who runs this
            "JUPYTER_RUNTIME_DIR": f"{folder}/runtime",
        }
        here = Path(folder) / "notebooks"
        here.mkdir()
        (Path(folder) / "data").symlink_to(NOTEBOOKS.parent / "data")
        client = NotebookClient(
            fresh,
            timeout=LIMIT_S,
            kernel_name="python3",
            resources={"metadata": {"path": str(here)}},
            record_timing=False,
        )
        before = dict(os.environ)
        os.environ.update(own)
        try:
            client.execute()
        finally:
            os.environ.clear()
            os.environ.update(before)
    return stripped(fresh)


def stripped(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a notebook with the kernel's name as its only metadata."""
    clean = nbformat.from_dict(notebook)
    clean.metadata = nbformat.from_dict(KERNEL)
    for cell in clean.cells:
        cell.metadata = nbformat.from_dict({})
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})
    return clean


def texts(cell: nbformat.NotebookNode) -> str:
    """Return what a cell prints and returns, as text."""
    if cell.cell_type != "code":
        return ""
    parts = []
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stdout":
            parts.append(output.text)
        elif output.output_type in ("execute_result", "display_data"):
            parts.append(output.data.get("text/plain", ""))
    return "\n".join(parts)


def same(one: str, other: str) -> bool:
    """Say whether two texts agree but for spaces and the last digit of numbers with decimals.

    >>> same("slope 1.02, 3 runs", "slope  1.03, 3 runs"), same("3 runs", "4 runs")
    (True, False)
    """
    if NUMBER.sub("#", one).split() != NUMBER.sub("#", other).split():
        return False
    pairs = zip(NUMBER.findall(one), NUMBER.findall(other), strict=True)
    return all(abs(float(a) - float(b)) <= 1.001 * _last_digit(a) for a, b in pairs)


def _last_digit(number: str) -> float:
    """Return a unit of the last digit of a number with decimals; 0 for an integer."""
    mantissa, _, exponent = number.partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - decimals) if decimals else 0.0


def differences(stored: nbformat.NotebookNode, fresh: nbformat.NotebookNode) -> list[str]:
    """Return what cells of an executed notebook say that those stored do not, a text each."""
    found = []
    for place, (old, new) in enumerate(zip(stored.cells, fresh.cells, strict=True), start=1):
        if not same(texts(old), texts(new)):
            found.append(f"cell {place} said\n{texts(old)}\nand says\n{texts(new)}")
    return found


def keep_pictures(stored: nbformat.NotebookNode, fresh: nbformat.NotebookNode) -> None:
    """Put stored pictures in the place of new ones that look the same."""
    for old, new in zip(stored.cells, fresh.cells, strict=True):
        for before, now in zip(old.get("outputs", []), new.get("outputs", []), strict=False):
            was, is_now = (output.get("data", {}).get("image/png") for output in (before, now))
            if was and is_now and _look_the_same(was, is_now):
                now.data["image/png"] = was


def _look_the_same(one: str, other: str) -> bool:
    pictures = []
    for text in (one, other):
        with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
            pictures.append(np.asarray(picture.convert("RGB"), dtype=np.float64))
    first, second = pictures
    return first.shape == second.shape and float(np.abs(first - second).mean()) < SEEN


def write(notebook: nbformat.NotebookNode, file: Path) -> None:
    """Write a notebook: the same notebook is the same bytes."""
    nbformat.validate(notebook)
    nbformat.write(notebook, file)


def main() -> int:
    """Execute notebooks and write them anew, or only compare; return the exit code."""
    parser = argparse.ArgumentParser(description="Execute the notebooks of docs/notebooks.")
    parser.add_argument("names", nargs="*", help="e.g. first_look; all if none is given")
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    given: Any = parser.parse_args()
    known = {file.stem: file for file in sorted(NOTEBOOKS.glob("*.ipynb"))}
    wrong = 0
    for name in given.names or known:
        if name not in known:
            parser.error(f"name must be one of {sorted(known)}, got {name!r}")
        stored = read(known[name])
        fresh = execute(stored)
        changed = differences(stored, fresh)
        wrong += len(changed)
        for line in changed:
            print(f"{name}, {line}", file=sys.stderr)
        if not given.check:
            keep_pictures(stored, fresh)
            write(fresh, known[name])
            print(f"written: {os.path.relpath(known[name])}")
    return 1 if wrong and given.check else 0


if __name__ == "__main__":
    sys.exit(main())
