"""Section of single runs: a row each, which points of charts lead to, and how to open one."""

from __future__ import annotations

import html
from collections.abc import Container, Sequence
from typing import Any
from urllib.parse import quote

import pandas as pd

from analysis.draw import key_text
from analysis.infer import cell_keys
from analysis.measure import Metric, Study
from analysis.read import without_attrs
from analysis.report import page
from analysis.report.numbers import significant
from analysis.report.overview import shown_metrics

MOST_RUNS = 1500  # that have a row
_MOST_VALUES = 12_000  # runs × flows × metrics of them
_MOST_COLUMNS = 12  # of errors; beyond, of one error only
_MOST_FAILED = 40  # that have a row before others


def shown_runs(found: Study) -> list[str]:
    """Choose the runs that have a row: all, or of many a random sample and the first that failed.

    Of runs that have not ended nothing is known yet, and they have none.
    """
    runs = without_attrs(found.results.runs)
    status = runs["status"].astype("str")
    runs = runs[status != "running"]
    columns = max(1, len(_errors(found.accuracy)))
    most = max(100, min(MOST_RUNS, _MOST_VALUES // columns))
    if len(runs) <= most:
        return runs["run_id"].astype("str").tolist()
    failed = runs[runs["status"].astype("str") != "finished"].head(_MOST_FAILED)
    others = runs.drop(failed.index).sample(most - len(failed), random_state=0)
    chosen = pd.concat([failed, others]).sort_index()
    return chosen["run_id"].astype("str").tolist()


def runs(found: Study, shown: Sequence[str]) -> str:
    """Tabulate the errors of single runs, with the line of Python that opens one."""
    if not shown:
        return page.paragraph("No run has ended yet.")
    rows = without_attrs(found.results.runs)
    rows = rows.set_index(rows["run_id"].astype("str")).loc[list(shown)]
    total = int((found.results.runs["status"].astype("str") != "running").sum())
    keys = [*_keys(found), "seed"]
    linked = frozenset(shown)
    table = pd.DataFrame(
        {
            "run": [run_link(run, linked) for run in shown],
            **{key: [key_text(value) for value in rows[key].tolist()] for key in keys},
            "status": rows["status"].astype("str").tolist(),
            **_numbers(found, shown),
        },
        dtype=object,
    )
    some = "" if len(shown) == total else f"{len(shown)} of {total}, drawn at random. "
    line = f"analysis.load({found.results.location!r}).run_steps(RUN)"
    caption = f"{some}A heading sorts. One run's steps: {line}"
    body = page.table(
        table, caption=caption, text=["run", *_words(rows, keys), "status"],
        anchors=[anchor(run) for run in shown],
    )  # fmt: skip
    location = html.escape(found.results.location)
    return f'<div class="runs" data-keys="{len(keys)}" data-results="{location}">{body}</div>'


def anchor(run: str) -> str:
    """Return the id of a run's row."""
    return f"run-{run}"


def run_link(run: str, linked: Container[str]) -> str:
    """Return a run's name, which leads to its row if it has one.

    >>> run_link("a1", {"a1"}), run_link("b2", {"a1"})
    ('<a href="#run-a1">a1</a>', 'b2')
    """
    if run not in linked:
        return run
    return page.Html(f'<a href="#{html.escape(quote(anchor(run)))}">{html.escape(run)}</a>')


def _keys(found: Study) -> list[str]:
    """Return what tells runs apart, as in all tables; without scores at least the learning rate."""
    if found.accuracy.empty:
        return ["workload", "criterion", "rule", "lr"]
    return [key for key in cell_keys(found.accuracy) if key in found.results.runs]


def _words(rows: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    return [key for key in keys if not pd.api.types.is_numeric_dtype(rows[key])]


def _errors(accuracy: pd.DataFrame) -> list[tuple[Metric, str]]:
    """Return the columns of errors: those whose trends are shown, of each flow."""
    if accuracy.empty:
        return []
    metrics = shown_metrics("trend", accuracy)
    flows = sorted(accuracy["flow"].astype("str").unique())
    if len(metrics) * len(flows) > _MOST_COLUMNS:
        metrics = metrics[:1]
    return [(metric, flow) for metric in metrics for flow in flows]


def _numbers(found: Study, shown: Sequence[str]) -> dict[str, list[Any]]:
    """Return the columns of errors by their headings, to three significant figures."""
    frame = without_attrs(found.accuracy)
    columns: dict[str, list[Any]] = {}
    for metric, flow in _errors(found.accuracy):
        rows = frame[frame["flow"].astype("str") == flow]
        values = rows.set_index(rows["run_id"].astype("str"))[metric.name].astype("float64")
        factor = 100.0 if metric.percent else 1.0
        texts = [significant(factor * v, 3) for v in values.reindex(list(shown)).tolist()]
        columns[f"{metric.short}, {flow}"] = texts
    return columns
