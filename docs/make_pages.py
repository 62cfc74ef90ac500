"""The documentation as web pages: the guides, and the API reference from the docstrings.

    make docs                                 # pages in build/docs, index.html first
    python docs/make_pages.py --to FOLDER

pdoc renders the docstrings as they are written: Markdown with equations in plain text, examples as
`>>>`, arguments in Google's style. The guides are Markdown and pass through the same converter,
notebooks too.
Nothing is fetched. What would mislead a reader fails the build: a warning of pdoc, a public name
without words, a link to a page, a heading or a picture that does not exist.
"""

from __future__ import annotations

import argparse
import contextlib
import html.parser
import importlib
import json
import pkgutil
import re
import shutil
import sys
import typing
import warnings
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import jaxtyping
import pdoc.doc
import pdoc.render
import pdoc.render_helpers

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("cflows_ray", "analysis")
REFERENCE = "api"  # a folder of its own: there is a guide and a package called `analysis`
GUARD = "\N{WORD JOINER}"  # stands between "<" and a letter while Markdown is read


@dataclass(frozen=True)
class Page:
    """A guide: its file below the root of the project, its page, and what leads to it."""

    source: Path
    target: str
    title: str


def guides() -> list[Page]:
    """Return the guides: the README, all of docs/, and what a contributor reads."""
    readme = Page(ROOT / "README.md", "index.html", "cflows_ray")
    docs = [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs").glob("*/*.ipynb"))]
    more = [*docs, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    return [readme, *(Page(file, f"{file.stem.lower()}.html", _title(file)) for file in more)]


def _title(file: Path) -> str:
    return markdown_of(file).partition("\n")[0].lstrip("# ")


def markdown_of(file: Path) -> str:
    """Return the text of a guide; of a notebook its cells, with their texts and pictures."""
    if file.suffix != ".ipynb":
        return file.read_text()
    parts = []
    for cell in json.loads(file.read_text())["cells"]:
        code, text = cell["cell_type"] == "code", "".join(cell["source"])
        parts.append(f"```python\n{text}\n```" if code else text)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                picture = "".join(data["image/png"]).replace("\n", "")
                parts.append(f"![output](data:image/png;base64,{picture})")
            elif said := "".join(output.get("text", data.get("text/plain", ""))):
                parts.append(f"```text\n{said.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def modules() -> list[str]:
    """Import all public modules, lazy names included; return how they are called."""
    names = []
    for package in PACKAGES:
        names.append(package)
        found = pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
        names += [info.name for info in found if "._" not in info.name]
    for name in names:
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            # pdoc looks into the module's dictionary, where a lazy name is not yet
            vars(module).setdefault(public, getattr(module, public))
    for name in names:
        module = importlib.import_module(name)
        for shape in ("Array", "Bool", "Float", "Int", "PyTree"):
            # imported for types alone where JAX must not be loaded
            vars(module).setdefault(shape, getattr(jaxtyping, shape))
    for name in names:
        module = importlib.import_module(name)
        for value in list(vars(module).values()):
            if isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields"):
                # a NamedTuple's constructor has its annotations as text that nobody can evaluate
                value.__new__.__annotations__ = typing.get_type_hints(value)
                value.__new__.__doc__ = None  # "Create new instance of ..."
            if isinstance(value, type) and "__init__" in vars(value) and is_dataclass(value):
                # a type of an inherited field has its name in the module of the base class
                with contextlib.suppress(NameError):  # imported for types alone: pdoc knows
                    hints = typing.get_type_hints(value)
                    known = value.__init__.__annotations__
                    known.update({name: hints[name] for name in known if name in hints})
    return names


def undocumented(module: pdoc.doc.Module) -> list[str]:
    """Return the public names of a module without words.

    Modules, classes, functions and methods need a docstring. A constant that `__all__` hands out
    needs one too, or must be named in its module's.
    """
    handed_out = getattr(module.obj, "__all__", ())
    members = [
        inner
        for member in module.flattened_own_members
        for inner in (member, *(member.own_members if isinstance(member, pdoc.doc.Class) else ()))
    ]
    bare = [] if module.docstring else [module.fullname]
    for member in members:
        if any(part.startswith("_") for part in member.qualname.split(".")) or member.docstring:
            continue
        if member.kind != "variable" or (
            member.qualname in handed_out and f"`{member.name}`" not in module.docstring
        ):
            bare.append(member.fullname)
    return bare


def _to_html(text: str) -> str:
    """Convert Markdown as pdoc does, but take neither <X, Y> nor B[X] for markup."""
    pdoc.render_helpers.markdown_extensions.pop("task_list", None)  # [X] would be a ticked box
    guarded = re.sub(r"<(?=[A-Za-z])(?!https?:)", f"<{GUARD}", text)
    return pdoc.render_helpers.to_html(guarded)


def _write(file: Path, text: str) -> None:
    """Write a page, with types by their short names."""
    name, dot = '<span class="n">{}</span>', r'<span class="o">\.</span>'
    for module in (("jaxtyping",), ("jaxlib", "_jax")):
        text = re.sub("".join(name.format(part) + dot for part in module), "", text)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text.replace(GUARD, ""))


def write_reference(names: list[str], folder: Path) -> dict[str, pdoc.doc.Module]:
    """Write a page for each module; return what pdoc knows of them."""
    env = pdoc.render.env
    env.filters["to_html"] = _to_html
    env.tests["below"] = lambda name, parent: name.rpartition(".")[0] == parent
    pdoc.render.configure(docformat="google", template_directory=ROOT / "docs" / "templates")
    known = {name: pdoc.doc.Module.from_name(name) for name in names}
    for name, module in known.items():
        file = folder / REFERENCE / f"{name.replace('.', '/')}.html"
        _write(file, pdoc.render.html_module(module, known))
    _write(folder / REFERENCE / "search.js", pdoc.render.search_index(known))
    return known


def write_guides(pages: list[Page], known: dict[str, pdoc.doc.Module], folder: Path) -> None:
    """Write the guides, with links to each other's pages, and copy the pictures."""
    targets = {page.source: page.target for page in pages}
    template = pdoc.render.env.get_template("page.html.jinja2")
    for page in pages:
        made = _to_html(markdown_of(page.source))
        text = template.render(
            title=page.title,
            content=_with_targets(made, page.source.parent, targets),
            contents=getattr(made, "toc_html", None),
            pages=pages,
            reference=REFERENCE,
            rooms=[n for n, m in known.items() if n.count(".") < 2 and _is_room(n, m)],
        )
        _write(folder / page.target, text)
    shutil.copytree(ROOT / "docs" / "figures", folder / "figures", dirs_exist_ok=True)


def _is_room(name: str, module: pdoc.doc.Module) -> bool:
    return module.is_package or name.startswith("cflows_ray.")


def _with_targets(text: str, home: Path, targets: dict[Path, str]) -> str:
    """Replace links between files of the project by links between their pages."""

    def replace(match: re.Match[str]) -> str:
        attribute, link = match.groups()
        path, hash_sign, anchor = link.partition("#")
        if not path or urlsplit(path).scheme:
            return match[0]
        file = (home / path).resolve()
        inside = ROOT / "docs"
        target = targets.get(file) or (
            file.relative_to(inside).as_posix() if file.is_relative_to(inside) else path
        )
        return f'{attribute}="{target}{hash_sign}{anchor}"'

    return re.sub(r'\b(href|src)="([^"]*)"', replace, text)


class _Links(html.parser.HTMLParser):
    """Collects what a page links to, and the names by which its parts can be linked to."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value and tag in ("a", "img"):
                self.links.append(value)


def broken_links(folder: Path) -> list[str]:
    """Return the links inside the written pages that lead nowhere."""
    read = {}
    for file in sorted(folder.rglob("*.html")):
        read[file] = _Links()
        read[file].feed(file.read_text())
    broken = []
    for file, page in read.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            anchors = read[target].anchors if target in read else set()
            # pdoc links to fields, which stand in their class, under no heading of their own
            is_guide = file.parent == folder and target.parent == folder
            if not target.exists() or (
                is_guide and parts.fragment and unquote(parts.fragment) not in anchors
            ):
                broken.append(f"{file.relative_to(folder)}: {link}")
    return broken


def make(folder: Path) -> list[str]:
    """Write all pages into a folder, emptied before; return what is wrong, one line each."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder = folder.resolve()
    names = modules()  # what others' packages warn of when imported is not our business
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        known = write_reference(names, folder)
        write_guides(guides(), known, folder)
    found = [f"warning: {warning.message}" for warning in caught]
    found += [f"undocumented: {name}" for m in known.values() for name in undocumented(m)]
    found += [f"broken link in {link}" for link in broken_links(folder)]
    return list(dict.fromkeys(found))


def main() -> int:
    """Make the pages; return the exit code."""
    parser = argparse.ArgumentParser(description="Write the documentation as web pages.")
    parser.add_argument("--to", type=Path, default=ROOT / "build" / "docs", help="folder")
    folder = parser.parse_args().to
    wrong = make(folder)
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        print(f"written: {folder / 'index.html'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
