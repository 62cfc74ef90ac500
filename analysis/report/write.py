"""The report: one self-contained HTML page over a results folder."""

from __future__ import annotations

import html
import json
import platform
from collections import Counter
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from analysis.draw import FigureSet, HyperparameterAxis
from analysis.infer import DEFAULT_SEED, LEVEL, RESAMPLES, cells, grouped, swept
from analysis.measure import EDGE_THRESHOLD, TRUNCATE, Study
from analysis.report import page, sections
from analysis.report.overview import overview, warnings_of

_PACKAGES = ("cflows-ray", "numpy", "pandas", "pyarrow", "scipy", "matplotlib")


def write_report(found: Study, folder: Path, *, command: str, kind: str = "png") -> Path:
    """Write `report.html` and its figures (`figures/*.<kind>`) into a folder; returns the page.

    The page needs no other file and no network; charts, sorting and colours at night are its own
    scripts. `command` is what the reader can type to make it
    again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shown = sections.shown_runs(found)
    figures = FigureSet(folder / "figures", kind, linked=shown)
    accuracy = found.accuracy
    by_group = _in_groups(found)
    parts: list[tuple[str, str]] = []
    if not accuracy.empty:
        parts.append(("Which flow is nearest", sections.nearest(by_group, figures)))
    parts.append(("Summary", _summary(found)))
    if not accuracy.empty:
        parts += [
            ("Two flows compared", sections.comparison(accuracy)),
            *_against(found, figures),
            ("Distance over time", _each(by_group, sections.distances, figures)),
            ("Single runs", _each(_in_groups(found, "lr"), sections.single_runs, figures)),
            ("Predicted and measured variance", sections.variances(by_group, figures)),
            ("Prediction horizons", sections.horizons(by_group, figures)),
            ("Dependence on the bandwidth", sections.bandwidths(found)),
        ]
    parts += [
        ("What failed and why", sections.failures(found, shown)),
        ("Runs", sections.runs(found, shown)),
        ("How this was made", _provenance(found, command)),
    ]
    runs = found.results.runs
    title = f"Prediction accuracy of flows: {_name(found)}"
    subtitle = f"{len(runs)} runs, {_plural(runs['rule'].nunique(), 'update rule')}, "
    subtitle += f"{_plural(runs['workload'].nunique(), 'workload')}"
    file = folder / "report.html"
    text = page.lightened(page.page(title, subtitle, parts), folder)
    file.write_text(text, encoding="utf-8")
    return file


def _against(found: Study, figures: FigureSet) -> list[tuple[str, str]]:
    """One section for the learning rate, and for each other hyperparameter that varies."""
    others = [x for x in swept(found.accuracy) if x != "lr"]
    return [
        (
            f"Accuracy against {HyperparameterAxis(found.accuracy, x).label}",
            _each(_in_groups(found, x), partial(sections.against, x=x), figures),
        )
        for x in ["lr", *others]
    ]


def _in_groups(found: Study, *keep: str) -> Study:
    """Group the values of hyperparameters that have many, but for those that are kept."""
    return replace(found, accuracy=grouped(found.accuracy, keep=keep).frame)


def _each(found: Study, section: sections.Section, figures: FigureSet) -> str:
    """One block of a section per workload and criterion."""
    blocks = []
    keys = ["workload", "criterion"]
    for cell, group in cells(found.accuracy, keys):
        workload, criterion = str(cell["workload"]), str(cell["criterion"])
        name = html.escape(f"{workload} · {criterion}")
        blocks.append(f"<h3>{name}</h3>" + section(found, group, figures))
    return "".join(blocks)


def _summary(found: Study) -> str:
    accuracy = found.accuracy
    lines = overview(found.results, accuracy)
    body = page.paragraph(lines[0])
    body += "".join(page.paragraph(line.strip(), "warn") for line in lines[1:])
    if accuracy.empty:
        return body + page.paragraph("No run has ended yet: nothing to score.", "warn")
    warnings = warnings_of(accuracy, found.bandwidth)
    body += "".join(page.paragraph(line, "warn") for line in warnings)
    return body + sections.summary(found)


def _provenance(found: Study, command: str) -> str:
    runs = found.results.runs
    pairs = [
        ("command", command),
        ("results", found.results.location),
        (
            "time average",
            f"Gaussian kernel, bandwidth {found.bandwidth:g} steps, cut off at "
            f"{TRUNCATE:g} bandwidths; steps whose window is incomplete are left out",
        ),
        ("at the edge", f"time-averaged effective sharpness of at least {EDGE_THRESHOLD:g}"),
        ("horizon tolerance", f"{found.tolerance:g}"),
        ("intervals", f"{LEVEL:.0%}; bootstrap with seed {DEFAULT_SEED}, {RESAMPLES} resamples"),
        ("analysed with", f"Python {platform.python_version()}, " + ", ".join(_versions())),
        ("runs made with", _counted(runs["versions"].dropna().map(_readable_versions))),
        ("commit of the runs", _counted(runs["commit"])),
        ("device", _counted(runs["device"])),
        ("computing time", f"{runs['wall_s'].sum() / 3600:.2f} h over all runs"),
    ]
    return page.definitions(pairs)


def _versions() -> list[str]:
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} (not installed)")
    return found


def _readable_versions(text: object) -> str:
    try:
        parsed = json.loads(str(text))
    except ValueError:
        return str(text)
    return ", ".join(f"{k} {v}" for k, v in parsed.items()) if isinstance(parsed, dict) else ""


def _counted(values: pd.Series) -> str:
    counts = Counter(str(v) for v in values.dropna())
    if not counts:
        return "not recorded"
    return "; ".join(v if len(counts) == 1 else f"{v} ({n} runs)" for v, n in counts.most_common())


def _name(found: Study) -> str:
    return ", ".join(sorted(map(str, found.results.runs["sweep"].dropna().unique())))


def _plural(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"
