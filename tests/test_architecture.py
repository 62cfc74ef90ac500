"""The architecture of docs/theory.md, held against the imports of every file."""

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


def room(module: str) -> str:
    """Return the part of the package that a module belongs to: one file, or one folder."""
    parts = module.split(".")
    return parts[1] if parts[0] == "cflows_ray" and len(parts) > 1 else parts[0]


def documented_order() -> list[str]:
    """Return the modules in the order of the table in docs/theory.md."""
    text = (ROOT / "docs" / "theory.md").read_text()
    table = text.split("## Architecture")[1].split("| --- | --- |")[1].split("\n\n")[0]
    cells = [line.split("|")[1] for line in table.strip().splitlines()]
    return [name.strip(" `/") for cell in cells for name in cell.split(",")]


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_a_module_imports_only_what_stands_above_it(file: Path) -> None:
    order = documented_order()
    module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    if module == "cflows_ray":
        return  # the public names, from wherever they are
    here = room(module)
    assert here in order, "docs/theory.md, Architecture, must list it"
    ours = {m for m in imported(file) if m.split(".")[0] in TOPS}
    below = {m for m in ours if room(m) != here and order.index(room(m)) >= order.index(here)}
    assert not below


@pytest.mark.parametrize(
    ("package", "only"),
    [
        ("ray", {"cflows_ray/tune.py"}),
        ("orbax", {"cflows_ray/checkpoint.py"}),
        ("tyro", {"cflows_ray/cli.py", "sweeps/edge_table.py"}),
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
    writers = {file.name for file in package if "write_table" in file.read_text()}
    assert writers == {"results.py"}


def test_analysis_reads_tables_and_knows_nothing_else_of_the_package() -> None:
    names = set().union(*(imported(f) for f in (ROOT / "analysis").rglob("*.py")))
    assert {name for name in names if name.startswith("cflows_ray")} == {"cflows_ray.schema"}
    assert not {name.split(".")[0] for name in names} & {"jax", "flax", "ray"}
