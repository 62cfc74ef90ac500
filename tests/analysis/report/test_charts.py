"""What the page does beyond pictures: charts, sorting, links from points to runs, two themes."""

from __future__ import annotations

import hashlib
import html
import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from synthetic import CENTRAL, STABLE, RunTruth, write_sweep

import analysis
from analysis.draw import FigureSet
from analysis.report import page, write_report
from analysis.report.sections import shown_runs

ASSETS = Path(page.__file__).parent / "assets"
HOSTILE = "r<b>'\"&0"  # a run's name that would break out of text and attributes
RELEASES = {
    "d3.min.js": "912111098ea99503a6f4967361d2bbdc9dbf58cf9c678c8e27e5b02d1a07f0c1",
    "plot.umd.min.js": "4358086467740777dd788d6b27a95cebdbaefdd50c730a3060117073bd7134cb",
    "sortable.min.js": "a887cf42ad5b69673364c529afe8500b31dfbe3e78c2e623bee6430fc69b990f",
    "sortable.a11y.min.js": "f22f8df7644643acbeb79cd3518a9dffde198d77efa17aa3eb38154bae4eaa65",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> analysis.Study:
    """Two learning rates of three seeds, a diverged run, and names that need escaping."""
    runs = [
        RunTruth(
            run_id=HOSTILE if i == 0 else f"r{i}", workload="</script><i>",
            lr=0.1 * (1 + i // 3), seed=i % 3, steps=120,
            flows={
                "central": replace(CENTRAL, distance=0.01 * (1 + i)),
                "stable": replace(STABLE, distance=0.1 * (1 + i)),
            },
        )
        for i in range(6)
    ]  # fmt: skip
    runs[5] = replace(runs[5], status="diverged", status_detail="<img src=http://a.example/x>")
    folder = write_sweep(tmp_path_factory.mktemp("charts"), runs, name="demo<i>", parts=1)
    return analysis.study(folder, bandwidth=5)


@pytest.fixture(scope="module")
def text(found: analysis.Study, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Text of its page."""
    folder = tmp_path_factory.mktemp("page")
    return write_report(found, folder, command="made <by> hand").read_text(encoding="utf-8")


def charts(text: str) -> list[dict[str, Any]]:
    found = re.findall(r'<script type="application/json" class="chart">(.*?)</script>', text)
    return [panel for one in found for panel in json.loads(one)["panels"]]


def run_rows(text: str) -> list[tuple[str, list[str]]]:
    """Run ids and cells of the table of runs, in order, as a browser reads them."""
    table = text.partition('<div class="runs"')[2].partition("</table>")[0]
    rows = re.findall(r'<tr id="run-(.*?)">(.*?)</tr>', table)
    cells = re.compile(r"<td[^>]*>(.*?)</td>")
    return [
        (html.unescape(run), [html.unescape(re.sub("<[^>]+>", "", c)) for c in cells.findall(row)])
        for run, row in rows
    ]


def without_scripts(text: str) -> str:
    return re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)


def test_every_dot_is_a_run_and_leads_to_its_row(text: str, found: analysis.Study) -> None:
    names = [run for run, _ in run_rows(text)]
    assert sorted(names) == sorted(found.results.runs["run_id"])
    dots = [
        (panel["y"]["label"], series["name"], series)
        for panel in charts(text)
        for series in panel["series"]
        if series.get("dots") and panel["x"]["label"] == "learning rate"
    ]
    assert len(dots) == 3 * 2  # metrics × flows
    frame = found.accuracy
    for label, flow, series in dots:
        (metric,) = [m.name for m in analysis.METRICS if m.label == label]
        assert len(series["run"]) == 5  # the diverged run is in no mean
        for run, x, y in zip(series["run"], series["x"], series["y"], strict=True):
            is_it = (frame["run_id"] == names[run]) & (frame["flow"] == flow.split()[0])
            (row,) = frame[is_it].to_dict("records")
            assert y == pytest.approx(row[metric], rel=1e-3)
            assert x == pytest.approx(row["lr"], rel=1e-5)
    variance = [s for p in charts(text) if "variance" in p["x"]["label"] for s in p["series"]]
    assert any(series.get("run") for series in variance)


def test_every_link_inside_the_page_has_its_end(text: str) -> None:
    ids = [html.unescape(i) for i in re.findall(r' id="([^"]*)"', without_scripts(text))]
    assert len(ids) == len(set(ids))
    ends = [unquote(html.unescape(h)) for h in re.findall(r'href="#([^"]*)"', text)]
    assert f"run-{HOSTILE}" in ends
    assert ends.count("run-r5") == 2  # from its own row, and from the list of what failed
    assert set(ends) <= set(ids)


def test_the_table_of_runs_holds_their_numbers(text: str, found: analysis.Study) -> None:
    frame = found.accuracy.set_index(["run_id", "flow"])
    rows = run_rows(text)
    assert len(rows) == 6
    for run, cells in rows:
        numbers = [float(c) if c != "-" else np.nan for c in cells[-6:]]
        expected = [
            factor * frame.loc[(run, flow), metric]
            for metric, factor in (
                ("final_distance", 100), ("log_loss_error", 1), ("sharpness_error", 1),
            )
            for flow in ("central", "stable")
        ]  # fmt: skip
        np.testing.assert_allclose(numbers, expected, rtol=6e-3)
    assert [cells[-7] for _, cells in rows].count("diverged") == 1


def test_columns_of_numbers_are_sorted_as_numbers() -> None:
    frame = pd.DataFrame(
        {
            "error": [page.with_small("≥9.5", "[1, 20]"), "10", "-"],
            "steps": [">400", "1e-05", "7%"],
            "rule": ["2 rules", "rmsprop", "-"],
        },
        dtype=object,
    )
    made = page.table(frame, text=["rule"])
    assert 'class="sortable' in made
    keys = [re.search(r'data-sort="([^"]*)"', c) for c in re.findall(r"<td[^>]*>", made)]
    found = [key[1] if key else None for key in keys]
    assert found == ["9.5", "400.0", None, None, None, None, "", "7.0", None]


def test_what_the_row_above_says_is_there_once_rows_are_sorted(text: str) -> None:
    summary = text.partition("<h2")[2].partition(">Summary</h2>")[2].partition("</table>")[0]
    rates = re.findall(r'<td class="text( again)?">(0\.[12])</td>', summary)
    rates = rates or re.findall(r'<td(?: class="(again)")?>(0\.[12])</td>', summary)
    assert [rate for _, rate in rates] == ["0.1", "0.1", "0.2", "0.2"]
    assert [bool(again) for again, _ in rates] == [False, True, False, True]


def test_hostile_names_stay_text(text: str) -> None:
    page_itself = without_scripts(text)
    assert "&lt;img src=http" in page_itself
    assert "&lt;/script&gt;&lt;i&gt;" in page_itself
    assert "<img src=http" not in text
    assert "<b>'" not in text
    assert text.count("</script>") == len(re.findall(r"<script\b[^>]*>", text))
    assert "<i>" not in page_itself
    assert "made &lt;by&gt; hand" in page_itself


def test_nothing_is_loaded_from_anywhere(text: str) -> None:
    """No script, style, font or picture of another place; the browser is told so as well."""
    assert not re.search(r"<(link|iframe|object|embed|base)\b", without_scripts(text))
    loaded = re.findall(r"<[^>]*\b(?:src|href)=(\S{7})", without_scripts(text))
    assert len(loaded) > 20
    assert all(where.startswith(('"#', '"data:')) for where in loaded)
    styles = "".join(re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles
    assert not re.search(r"<script[^>]*\bsrc", text)
    own = (ASSETS / "report.js").read_text()
    assert not re.search(r"https?:|fetch\(|XMLHttp|import\(|innerHTML", own)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "http" not in policy[1]


def test_without_scripts_there_are_the_pictures(text: str) -> None:
    """They are hidden by a class that a script sets, and shown in print again."""
    figures = re.findall(r"<figure>(.*?)</figure>", text, flags=re.DOTALL)
    assert figures
    assert all('src="data:image/png;base64,' in figure for figure in figures)
    assert 'class="live"' not in without_scripts(text)
    style = (ASSETS / "report.css").read_text()
    hidden = [rule for rule in style.split("}") if "display: none" in rule and "img" in rule]
    assert hidden
    assert all(".live" in rule for rule in hidden)
    in_print = style.partition("@media print")[2]
    assert ".live figure.charted > img { display: block !important; }" in in_print


@pytest.mark.parametrize("name", RELEASES)
def test_libraries_are_as_their_authors_released_them(name: str) -> None:
    data = (ASSETS / name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == RELEASES[name]
    assert b"</script" not in data
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["package-data"]["analysis.report"] == ["assets/*"]


def test_of_many_runs_some_have_rows_the_failed_first(found: analysis.Study) -> None:
    runs = found.results.runs.iloc[np.ones(10_000, dtype=int)].reset_index(drop=True)
    runs["run_id"] = [f"many{i}" for i in range(len(runs))]
    runs["status"] = ["running", *["finished"] * (len(runs) - 4), *["failed"] * 3]
    many = replace(found, results=_WithRuns(runs))  # type: ignore[arg-type]
    chosen = shown_runs(many)
    assert len(chosen) == len(set(chosen)) == 1500
    assert {"many9997", "many9998", "many9999"} <= set(chosen)
    assert "many0" not in chosen
    assert shown_runs(many) == chosen


class _WithRuns:
    def __init__(self, runs: pd.DataFrame) -> None:
        self.runs = runs


def test_charts_end_where_they_would_be_heavy(
    found: analysis.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.draw.figure_set.MOST_CHART_BYTES", 8_000)
    figures = FigureSet(Path())
    made = [figures.chart(figures.one_run(found.results, f"r{i}", 5.0)) for i in range(1, 5)]
    assert made[0]
    assert not made[-1]
    assert sum(len(one.encode()) for one in made) <= 8_000
