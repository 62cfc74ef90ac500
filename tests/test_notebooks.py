"""docs/notebooks: they run, and say what is stored; and how that is told apart from rounding."""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient.exceptions import CellExecutionError
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))  # for `make_notebooks`

import make_notebooks

FILES = sorted(make_notebooks.NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_notebook_says_what_is_stored(file: Path) -> None:
    stored = make_notebooks.read(file)
    assert make_notebooks.differences(stored, make_notebooks.execute(stored)) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_is_stored_is_as_it_is_written(file: Path, tmp_path: Path) -> None:
    stored = make_notebooks.read(file)
    make_notebooks.write(make_notebooks.stripped(stored), tmp_path / "again.ipynb")
    assert (tmp_path / "again.ipynb").read_bytes() == file.read_bytes()
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(output.get("name") == "stderr" for cell in code for output in cell.outputs)


@pytest.mark.slow
def test_an_error_in_a_cell_is_an_error() -> None:
    broken = notebook("x = 1", "1 / 0")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        make_notebooks.execute(broken)


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        ("error 0.12", "error  0.13", True),
        ("error 0.12", "error 0.14", False),
        ("1.5e-07", "1.6e-07", True),
        ("1.5e-07", "1.7e-07", False),
        ("-0.01", "0.00", True),
        ("3 runs", "4 runs", False),
        ("step_20", "step_21", False),
        ("status: finished", "status: diverged", False),
        ("NaN 1.0", "1.0 NaN", False),
    ],
)
def test_texts_agree_up_to_the_last_digit(one: str, other: str, agree: bool) -> None:
    assert make_notebooks.same(one, other) == agree


def notebook(*sources: str, says: Any = ()) -> nbformat.NotebookNode:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    for cell, outputs in zip(cells, says, strict=False):
        cell.outputs = outputs
    return nbformat.v4.new_notebook(cells=cells)


def printed(text: str, name: str = "stdout") -> nbformat.NotebookNode:
    return nbformat.v4.new_output("stream", name=name, text=text)


def drawn(value: int, dot: int = 0) -> nbformat.NotebookNode:
    file = io.BytesIO()
    pixels = np.full((4, 4, 3), value, dtype=np.uint8)
    pixels[0, 0] += dot
    Image.fromarray(pixels).save(file, "png")
    data = {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": "<Figure>"}
    return nbformat.v4.new_output("display_data", data=data)


def test_what_is_compared_are_texts() -> None:
    stored = notebook("a", "b", says=[[printed("x 1.0"), drawn(9)], [printed("y")]])
    fresh = notebook("a", "b", says=[[printed("x 1.1"), drawn(90)], [printed("z")]])
    (only,) = make_notebooks.differences(stored, fresh)
    assert only == "cell 2 said\ny\nand says\nz"
    warned = [printed("y"), printed("w", "stderr")]
    fresh = notebook("a", "b", says=[stored.cells[0].outputs, warned])
    assert make_notebooks.differences(stored, fresh) == []
    fresh = notebook("a", "b", says=[stored.cells[0].outputs, []])
    assert len(make_notebooks.differences(stored, fresh)) == 1


def test_a_picture_is_replaced_where_one_sees_it() -> None:
    stored = notebook("a", says=[[drawn(100)]])
    nearly, other = notebook("a", says=[[drawn(100, 10)]]), notebook("a", says=[[drawn(105)]])
    before, changed = (book.cells[0].outputs[0].data["image/png"] for book in (stored, other))
    make_notebooks.keep_pictures(stored, nearly)
    make_notebooks.keep_pictures(stored, other)
    assert nearly.cells[0].outputs[0].data["image/png"] == before
    assert other.cells[0].outputs[0].data["image/png"] == changed


def test_times_and_places_are_not_stored() -> None:
    book = notebook("a", says=[[drawn(1)]])
    book.metadata["language_info"] = {"name": "python", "version": "3.11.7"}
    book.cells[0].metadata["execution"] = {"iopub.execute_input": "2026-01-01"}
    book.cells[0].outputs[0].metadata["needs_background"] = "light"
    clean = make_notebooks.stripped(book)
    assert clean.metadata == make_notebooks.KERNEL
    assert (clean.cells[0].metadata, clean.cells[0].outputs[0].metadata) == ({}, {})
