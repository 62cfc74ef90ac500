"""The rooms of `analysis`: who imports whom, and that nothing reaches past a room's face."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("read", "measure", "infer", "draw", "report")  # each imports from those before it
PACKAGE = sorted((ROOT / "analysis").rglob("*.py"))
USERS = [
    *sorted((ROOT / "tests" / "analysis").rglob("*.py")),
    *sorted((ROOT / "tests" / "benchmarks").glob("analysis_*.py")),
]


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(text: str) -> set[tuple[str, str]]:
    """All imports from `analysis` in a text, also those inside functions: (module, name)."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {(node.module, alias.name) for alias in node.names}
    return {(module, name) for module, name in found if module.split(".")[0] == "analysis"}


def room(module: str) -> str:
    """Return the room of a module; empty for the package itself and `__main__`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else ""


def past_the_face(text: str, here: str) -> set[str]:
    """Find imports of a text in the room `here` that reach into another room."""
    bad = set()
    for module, name in imports(text):
        there = room(module)
        if not there or there == here:
            continue
        face = importlib.import_module(f"analysis.{there}")
        if module != f"analysis.{there}" or name not in face.__all__:
            bad.add(f"{module}.{name}" if name else module)
    return bad


def upwards(text: str, here: str) -> set[str]:
    """Find the rooms after the room `here` that a text in it imports from."""
    rooms = {room(module) for module, _ in imports(text)} - {""}
    return {there for there in rooms if ROOMS.index(there) > ROOMS.index(here)}


def test_the_rooms_are_what_there_is() -> None:
    folders = {f.name for f in (ROOT / "analysis").iterdir() if (f / "__init__.py").exists()}
    assert folders == set(ROOMS)
    files = {f.name for f in (ROOT / "analysis").glob("*.py")}
    assert files == {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("file", PACKAGE, ids=module_name)
def test_imports_point_one_way_and_stop_at_faces(file: Path) -> None:
    text, here = file.read_text(), room(module_name(file))
    assert not past_the_face(text, here)
    if here:
        assert not upwards(text, here)
        assert not {name for module, name in imports(text) if module == "analysis"} - set(ROOMS)


@pytest.mark.parametrize("file", USERS, ids=lambda f: str(f.relative_to(ROOT)))
def test_users_stop_at_faces_too(file: Path) -> None:
    """But for the tests of a room, which may reach into it."""
    here = file.parent.name if file.parent.name in ROOMS else ""
    allowed = {"analysis.report.sections"} if here == "report" else set()
    assert not past_the_face(file.read_text(), here) - allowed


@pytest.mark.parametrize("name", ROOMS)
def test_a_face_says_in_one_line_what_lives_there(name: str) -> None:
    face = importlib.import_module(f"analysis.{name}")
    head, *more = (face.__doc__ or "").strip().splitlines()
    assert head.endswith(".")
    assert not more or more[0] == ""  # what it hands out is a paragraph of its own
    assert sorted(face.__all__) == sorted(set(face.__all__))
    for public in face.__all__:
        assert hasattr(face, public), public


@pytest.mark.parametrize("file", [f for f in PACKAGE if f.name != "__init__.py"], ids=module_name)
def test_no_module_only_forwards(file: Path) -> None:
    body = ast.parse(file.read_text()).body
    assert any(isinstance(node, (ast.FunctionDef, ast.ClassDef)) for node in body)


def test_the_checks_see_what_they_forbid() -> None:
    assert upwards("from analysis.report import FORMATS", "draw") == {"report"}
    assert upwards("import analysis.draw", "infer") == {"draw"}
    assert not upwards("from analysis.read import load", "draw")
    deep = "def f():\n    from analysis.measure.scoring import score"
    assert past_the_face(deep, "infer") == {"analysis.measure.scoring.score"}
    assert past_the_face("from analysis.read import first_line", "draw")
    assert past_the_face("import analysis.read.folders", "")
    assert not past_the_face(deep, "measure")
