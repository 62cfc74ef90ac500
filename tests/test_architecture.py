"""The house of docs/architecture.md, held against the imports of every file.

Rooms are folders (and the few files beside them). Imports point one way, down the list of rooms;
from another room a file takes only what that room's `__init__.py` hands out.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOPS = ("cflows_ray", "sweeps", "analysis")
FILES = sorted(file for top in TOPS for file in (ROOT / top).rglob("*.py"))


def imported(file: Path) -> set[str]:
    """Return the modules that a file imports, also inside functions, but not for types alone."""
    names = set()
    for node in ast.walk(_without_type_checking(ast.parse(file.read_text()))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "cflows_ray":
            names |= {f"cflows_ray.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def _without_type_checking(tree: ast.Module) -> ast.Module:
    def is_guard(node: ast.stmt) -> bool:
        return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"

    tree.body = [node for node in tree.body if not is_guard(node)]
    return tree


def module_of(file: Path) -> str:
    """Return the name by which a file is imported."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room(module: str) -> str:
    """Return the part of the package that a module belongs to: one file, or one folder."""
    parts = module.split(".")
    return parts[1] if parts[0] == "cflows_ray" and len(parts) > 1 else parts[0]


def documented_order() -> list[str]:
    """Return the rooms in the order of the table in docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.split("## Rooms")[1].split("| --- | --- |")[1].split("\n\n")[0]
    cells = [line.split("|")[1] for line in table.strip().splitlines()]
    return [name.strip(" `/") for cell in cells for name in cell.split(",")]


def others(file: Path) -> set[str]:
    """Return the modules of ours, in other rooms, that a file imports."""
    here = room(module_of(file))
    ours = {m for m in imported(file) if m.split(".")[0] in TOPS}
    return {m for m in ours if room(m) != here}


INSIDE = [file for file in FILES if module_of(file) != "cflows_ray"]


@pytest.mark.parametrize("file", INSIDE, ids=module_of)
def test_a_module_imports_only_what_stands_above_it(file: Path) -> None:
    order, here = documented_order(), room(module_of(file))
    assert here in order, "docs/architecture.md, Rooms, must list it"
    assert not {m for m in others(file) if order.index(room(m)) >= order.index(here)}


@pytest.mark.parametrize("file", INSIDE, ids=module_of)
def test_a_module_reaches_no_further_than_another_rooms_face(file: Path) -> None:
    assert not {m for m in others(file) if m.startswith("cflows_ray.") and m.count(".") > 1}


@pytest.mark.parametrize("folder", sorted({f.parent for f in FILES if f.parent.name != "sweeps"}))
def test_a_room_says_what_lives_there_and_hands_out_what_it_has(folder: Path) -> None:
    tree = ast.parse((folder / "__init__.py").read_text())
    assert (ast.get_docstring(tree) or "").splitlines()[0].endswith(".")
    names = {t.id for node in tree.body if isinstance(node, ast.Assign) for t in node.targets}  # type: ignore[attr-defined]
    assert "__all__" in names


@pytest.mark.parametrize(
    ("package", "only"),
    [
        ("ray", {"cflows_ray/sweep/tune.py"}),
        ("orbax", {"cflows_ray/store/checkpoint.py"}),
        ("tyro", {"cflows_ray/sweep/options.py", "sweeps/edge_table.py"}),
    ],
)
def test_what_one_file_only_imports(package: str, only: set[str]) -> None:
    files = {
        str(file.relative_to(ROOT))
        for file in FILES
        if any(name.split(".")[0] == package for name in imported(file))
    }
    assert files == only


def test_one_file_writes_the_tables() -> None:
    package = [file for file in FILES if file.relative_to(ROOT).parts[0] == "cflows_ray"]
    writers = {module_of(file) for file in package if "write_table" in file.read_text()}
    assert writers == {"cflows_ray.store.parquet"}


def test_analysis_reads_tables_and_knows_nothing_else_of_the_package() -> None:
    names = set().union(*(imported(f) for f in (ROOT / "analysis").rglob("*.py")))
    ours = {name for name in names if name.startswith("cflows_ray")}
    assert ours <= {"cflows_ray.schema", "cflows_ray.registry", "cflows_ray.checks"}
    assert not {name.split(".")[0] for name in names} & {"jax", "flax", "ray"}


def test_no_module_only_forwards() -> None:
    """Only a room's `__init__.py` may consist of imports."""
    for file in FILES:
        if file.name == "__init__.py":
            continue
        tree = ast.parse(file.read_text())
        own = [n for n in tree.body if not isinstance(n, ast.Import | ast.ImportFrom | ast.Expr)]
        assert any(not isinstance(n, ast.Assign) for n in own), file
