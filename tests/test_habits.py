"""What contributors rely on: the hooks are the checks of `make test`; one version; a citation."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

import cflows_ray

ROOT = Path(__file__).parents[1]


def test_the_hooks_are_the_checks_of_make_test() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"  # nothing is downloaded
    hooks = {hook["entry"].removesuffix(" --force-exclude") for hook in repository["hooks"]}
    makefile = (ROOT / "Makefile").read_text()
    recipes = "".join(re.findall(r"(?m)^(?:lint|types):.*\n((?:\t.*\n)+)", makefile))
    checks = {line.removesuffix(" .") for line in re.findall(r"\$\(BIN\)/(.*)", recipes)}
    assert len(checks) == 3
    assert {hook.removeprefix(".venv/bin/") for hook in hooks} == checks
    assert re.search(r"(?m)^test: lint types$", makefile)


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"]
    assert "version" not in yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert re.fullmatch(r"\d+\.\d+\.\d+", cflows_ray.__version__)
    released = re.findall(r"(?m)^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text())
    assert released[0] == cflows_ray.__version__


def test_the_citation_names_the_method_and_the_software() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    paper = citation["preferred-citation"]
    families = [author["family-names"] for author in paper["authors"]]
    assert families == ["Cohen", "Damian", "Talwalkar", "Kolter", "Lee"]
    assert any("2410.24206" in identifier["value"] for identifier in paper["identifiers"])
