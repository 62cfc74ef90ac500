"""README and docs/: their Python is run, their commands exist, their pages and drawing are true."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))  # for `page_code`

from page_code import Block, blocks, run_blocks

from analysis.measure.metrics import METRICS
from cflows_ray.declare import declared
from cflows_ray.flows import FLOWS, Settings
from cflows_ray.rules import RULES, all_hyperparameters
from cflows_ray.sweep.options import Options
from cflows_ray.workloads import DATA, NETWORKS, WORKLOADS
from tests.draw_house import DRAWING, draw, floors, imports_of_rooms, needed

ROOT = Path(__file__).parents[1]
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def run(file: Path) -> int:
    """Run the blocks of a file in order, as one program; return how many there were."""
    with registries_as_before():
        return run_blocks(blocks(file.read_text()), file.name)


@contextlib.contextmanager
def registries_as_before() -> Iterator[None]:
    """Forget what a page registers: other tests count what there is."""
    registries = (RULES, FLOWS, WORKLOADS, DATA, NETWORKS, METRICS)
    before = [set(registry.additions()) for registry in registries]
    try:
        yield
    finally:
        for registry, known in zip(registries, before, strict=True):
            for name in set(registry.additions()) - known:
                registry.remove(name)


@pytest.fixture
def beside_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a folder that holds `results/quickstart`: small tables with errors known."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "analysis"))
    from synthetic import study_runs, write_sweep

    write_sweep(tmp_path / "results", study_runs(), name="quickstart")
    monkeypatch.chdir(tmp_path)
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


WITH_CODE = [
    file
    for file in TEXTS
    if "```python" in file.read_text() and file.name != "gallery.md"  # run by test_gallery.py
]


@pytest.mark.parametrize("file", WITH_CODE, ids=lambda file: file.name)
@pytest.mark.usefixtures("beside_results")
def test_the_code_of_a_page_runs(file: Path) -> None:
    found = blocks(file.read_text())
    assert len(found) == file.read_text().count("```python"), "a block does not begin its line"
    assert run(file) == sum(block.not_run is None for block in found)


def test_what_is_not_run_says_why() -> None:
    for file in TEXTS:
        reasons = [block.not_run for block in blocks(file.read_text()) if block.not_run is not None]
        assert all(len(reason.split()) > 1 for reason in reasons), file
        assert len(reasons) == len(re.findall(r"(?m)^<!-- not run", file.read_text())), file


def test_blocks_are_found_with_their_lines_and_reasons() -> None:
    text = "# x\n```python\na = 1\n```\n<!-- not run: needs a GPU -->\n```python\nb\n```\n"
    assert blocks(text) == [Block(3, "a = 1\n", None), Block(7, "b\n", "needs a GPU")]


def test_an_error_in_a_block_names_the_line_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# x\n\n```python\nx = 1\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        run(page)
    assert caught.traceback[-1].lineno + 1 == 5  # counted from 0


def test_commands_that_are_shown_exist() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    for file in TEXTS:
        text = file.read_text()
        code = "\n".join(re.findall(r"(?m)^    .*|`[^`\n]*`", text))
        assert set(re.findall(r"\bmake ([a-z-]+)", code)) <= targets, file
        for script in re.findall(r"python (\w+/\w+\.py)", code):
            assert (ROOT / script).exists(), f"{file}: {script}"
        for module in re.findall(r"python -m ([\w.]+)", code):
            assert importlib.util.find_spec(module), f"{file}: {module}"


def options_of(program: str) -> set[str]:
    """Return the options of a script (by its path) or a module, without their dashes."""
    is_script = program.endswith(".py")
    file = ROOT / (program if is_script else program.replace(".", "/") + ".py")
    files = [file] if file.exists() else sorted(file.with_suffix("").glob("*.py"))
    if program.startswith("sweeps/"):
        files.append(ROOT / "sweeps" / "paper_studies.py")
    texts = [one.read_text() for one in files]
    options = {name for text in texts for name in re.findall(r'"--([\w-]+)"', text)}
    if program.startswith("sweeps/"):
        names = {f.name for f in dataclasses.fields(Options)}
        names |= {*declared(Settings), *all_hyperparameters()}
        options |= {name.replace("_", "-") for name in names}
    return {*options, "help"}


def test_options_that_are_shown_exist() -> None:
    checked = 0
    for file in TEXTS:
        for line in re.findall(r"(?m)^    (.*)$", file.read_text()):
            shown = line.split("  #")[0]
            command = re.search(r"\bpython (?:-m ([\w.]+)|(\w+/\w+\.py))( .*)?$", shown)
            if command is None or command[3] is None:
                continue
            program = command[1] or command[2]
            if not program.startswith(("sweeps", "analysis", "docs", "tests", "cflows_ray")):
                continue
            for option in re.findall(r"(?<=\s)--([a-z][\w-]*)", command[3]):
                assert option in options_of(program), f"{file}: {program} --{option}"
                checked += 1
    assert checked > 15


FOLDERS = ("cflows_ray", "analysis", "sweeps", "tests")
CODE = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]


def sections_named(text: str) -> list[tuple[str, str]]:
    """Return what a text refers to as docs/PAGE.md, "Section": page and section."""
    plain = re.sub(r"\s*\n\s*(?:# )?", " ", text)
    return re.findall(r"([\w-]+\.md)\)?`?, (?:section )?\"([^\"]+)\"", plain)


def test_sections_that_are_referred_to_exist() -> None:
    """By their whole heading, or what it has before a colon."""
    headings = {}
    for page in TEXTS:
        lines = re.findall(r"(?m)^#+ (.*)", page.read_text())
        headings[page.name] = {*lines, *(line.partition(":")[0] for line in lines)}
    found = 0
    for file in {*CODE, *TEXTS} - {Path(__file__)}:  # which has examples of pages
        for page, section in sections_named(file.read_text()):
            found += 1
            assert section in headings[page], f"{file}: {page}, {section!r}"
    assert found > 20


def test_sections_are_found_across_lines() -> None:
    text = 'x (docs/a.md,\n    # "Two words"), docs/b.md, section "Else", docs/c.md and "this"'
    assert sections_named(text) == [("a.md", "Two words"), ("b.md", "Else")]


def test_files_that_code_and_pages_name_exist() -> None:
    """Paths from the root or a room; in the code also, in backticks, single names."""
    tops = ("", "cflows_ray/", "analysis/")
    names = {file.name for file in (*CODE, *(ROOT / "docs").glob("*.py"))}
    for file in (*CODE, *TEXTS):
        text = file.read_text()
        for path in re.findall(r"\b((?:cflows_ray|analysis|sweeps|tests|docs)/[\w/]+\.py)\b", text):
            assert any((ROOT / top / path).exists() for top in tops), f"{file}: {path}"
        if file.suffix == ".py" and "tests" not in file.parts:
            for name in re.findall(r"`(?:[\w/]+/)?(\w+\.py)`", text):
                assert name in names, f"{file}: {name}"


# The pages of `make docs`


@pytest.fixture(scope="module")
def pages() -> types.ModuleType:
    """Return the script that makes the pages, as a module."""
    spec = importlib.util.spec_from_file_location("make_pages", ROOT / "docs" / "make_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_pages_are_made_without_a_complaint(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "docs" / "make_pages.py"), "--to", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    reference = (tmp_path / "site" / "api" / "cflows_ray" / "linalg" / "sdcp.html").read_text()
    assert "&lt;X, Y&gt; = 0" in reference  # mathematics, not a tag of HTML
    assert 'type="checkbox" disabled' not in (tmp_path / "site" / "theory.html").read_text()
    assert "https://" not in re.sub(r'href="https://[^"]*"', "", _fetched(tmp_path / "site"))


def _fetched(site: Path) -> str:
    """Return the tags of all pages that make a browser fetch something by itself."""
    tags = re.compile(r"<(?:script|img|link|iframe)\b[^>]*>")
    return "\n".join(tag for file in site.rglob("*.html") for tag in tags.findall(file.read_text()))


def test_public_names_without_words_are_complaints(pages: types.ModuleType) -> None:
    import pdoc.doc

    module = types.ModuleType("bare")
    words = "    'Words.'\n"
    exec(f"def f(): pass\ndef g():\n{words}class C:\n{words}    def h(self): pass", vars(module))
    exec("X = 1", vars(module))
    module.__dict__["__all__"] = ["f", "g", "C", "X"]
    known = pdoc.doc.Module(module)
    assert pages.undocumented(known) == ["bare", "bare.f", "bare.C.h", "bare.X"]
    module.__doc__ = "Hands out `X`."
    assert pages.undocumented(pdoc.doc.Module(module)) == ["bare.f", "bare.C.h"]


def test_a_notebook_is_a_page(pages: types.ModuleType, tmp_path: Path) -> None:
    outputs = [{"text": ["2\n"]}, {"data": {"text/plain": "<Figure>", "image/png": "iVBO\nRw"}}]
    code = {"cell_type": "code", "source": ["x = 2\n", "print(x)"], "outputs": outputs}
    file = tmp_path / "a.ipynb"
    file.write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": ["# A"]}, code]}))
    assert pages.markdown_of(file) == (
        "# A\n\n```python\nx = 2\nprint(x)\n```\n\n```text\n2\n```\n\n"
        "![output](data:image/png;base64,iVBORw)\n"
    )
    assert {page.target for page in pages.guides()} >= {"first_look.html", "sweep_to_figure.html"}


def test_links_that_lead_nowhere_are_complaints(pages: types.ModuleType, tmp_path: Path) -> None:
    (tmp_path / "b.html").write_text('<h1 id="there">b</h1>')
    links = ["b.html", "b.html#there", "b.html#gone", "c.html", "https://example.org", "#gone"]
    (tmp_path / "a.html").write_text("".join(f'<a href="{link}">x</a>' for link in links))
    assert pages.broken_links(tmp_path) == [
        "a.html: b.html#gone",
        "a.html: c.html",
        "a.html: #gone",
    ]


# The house


def test_the_stations_on_the_ways_exist() -> None:
    """What docs/architecture.md names, "`room/file.py`: `Name`, `Class.method`", is there."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    stations = re.findall(r"`(\w+/\w+\.py)`(?:: ((?:`[\w.]+`(?:, )?)+))?", text)
    assert len(stations) > 15
    for path, names in stations:
        file = next(
            (top / path for top in (ROOT, ROOT / "cflows_ray") if (top / path).exists()), None
        )
        assert file is not None, path
        defined = set(re.findall(r"(?m)^ *(?:def|class) (\w+)|^(\w+)(?::.*)? = ", file.read_text()))
        for name in re.findall(r"\w+(?=`)", names):
            assert name in {word for pair in defined for word in pair}, f"{path}: {name}"


def test_the_drawing_is_that_of_the_imports() -> None:
    again = "run python -m tests.draw_house"
    assert DRAWING.read_text() == draw(imports_of_rooms()), again
    assert "(figures/house.svg)" in (ROOT / "docs" / "architecture.md").read_text()


def test_the_drawing_changes_with_the_imports() -> None:
    imports = {name: set(rooms) for name, rooms in imports_of_rooms().items()}
    for name, rooms in needed(imports).items():
        for target in rooms:
            fewer = {**imports, name: imports[name] - {target}}
            assert draw(fewer) != draw(imports), f"{name} -> {target}"


def test_arrows_point_up_and_imply_those_left_out() -> None:
    imports = {"a": set(), "b": {"a"}, "c": {"a", "b"}, "d": {"a", "c"}}
    assert needed(imports) == {"a": set(), "b": {"a"}, "c": {"b"}, "d": {"c"}}
    assert floors(imports) == {"a": 0, "b": 1, "c": 2, "d": 3}
