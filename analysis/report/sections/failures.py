"""Sections on what to be careful with: the bandwidth, and remarks, failed runs, flows and files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.measure import SAMPLED_RUNS, Study, find_metric
from analysis.report import page
from analysis.report.cells import cell_table, records
from analysis.report.numbers import percent, significant
from analysis.report.sections.runs import run_link

_MOST_ROWS = 40  # of a list of what failed


def bandwidths(found: Study) -> str:
    """Tabulate the smoothed metrics at half, once and twice the bandwidth."""
    table = found.sensitivity
    if table.empty:
        return page.paragraph("No run is long enough for a time average.")
    shown = table.reset_index()
    rows = [
        {
            "flow": row["flow"],
            "metric": find_metric(row["metric"]).label,
            **{f"{b:g} steps": significant(row[b], 3) for b in table.columns if b != "spread"},
            "largest / smallest - 1": percent(row["spread"]),
        }
        for _, row in shown.iterrows()
    ]
    caption = (
        f"Mean over the finished runs (of more than {SAMPLED_RUNS}, a sample), by the bandwidth of "
    )
    caption += "the time average; each over the "
    caption += "steps that its window sees, so wider ones begin later"
    return cell_table(rows, ["flow"], caption, ["flow", "metric"])


def failures(found: Study, shown: Sequence[str] = ()) -> str:
    """Tabulate runs that did not finish or have a remark, flows that ended, and files left out.

    `shown`: the runs that have a row of their own, to which this leads.
    """
    linked = frozenset(shown)
    runs = found.results.runs
    status = runs["status"].astype("str")
    bad = runs[~status.isin(["finished", "running"])]
    body = ""
    if not bad.empty:
        rows = [
            {
                "run": run_link(str(row.run_id), linked),
                "rule": row.rule, "lr": f"{row.lr:g}", "seed": row.seed,
                "status": row.status,
                "why": "" if pd.isna(row.status_detail) else row.status_detail,
            }
            for row in records(bad.head(_MOST_ROWS))
        ]  # fmt: skip
        caption = f"Runs that did not finish (counted, not averaged){_more(bad)}"
        body += page.table(
            pd.DataFrame(rows, dtype=object), caption=caption,
            text=["run", "rule", "status"], wrap=["why"],
        )  # fmt: skip
    body += _remarks(runs[status == "finished"])
    scored = found.accuracy[found.accuracy["run_status"].astype("str") != "undefined"]
    odd = scored[scored["flow_status"].astype("str") != "ok"]
    if not odd.empty:
        rows = [
            {
                "run": run_link(str(row.run_id), linked),
                "rule": row.rule, "lr": f"{row.lr:g}", "seed": row.seed,
                "flow": row.flow, "what": _flow_status(row),
            }
            for row in records(odd.head(_MOST_ROWS))
        ]  # fmt: skip
        caption = f"Flows that stopped, diverged or left no steps{_more(odd)}"
        body += page.table(
            pd.DataFrame(rows, dtype=object), caption=caption,
            text=["run", "rule", "flow", "what"],
        )  # fmt: skip
    problems = found.results.problems
    if not problems.empty:
        caption = f"Files left out{_more(problems)}"
        body += page.table(problems.head(_MOST_ROWS), caption=caption, wrap=["file", "problem"])
    if (running := int((status == "running").sum())) > 0:
        body += page.paragraph(f"{running} runs had not ended when this was made.")
    nothing = "Nothing: every run finished without a remark, no flow ended early, no bad file."
    return body or page.paragraph(nothing)


def _remarks(finished: pd.DataFrame) -> str:
    """Tabulate what finished runs say of themselves, but for flows that ended, which come below."""
    details = finished["status_detail"].dropna().astype("str").str.split("; ").explode()
    details = details[~details.str.fullmatch(r"\w+ flow (?:stopped|diverged)")]
    if details.empty:
        return ""
    counts = _alike(details).value_counts().head(_MOST_ROWS)
    rows = pd.DataFrame({"runs": counts.astype("str").to_numpy(), "what": counts.index})
    return page.table(rows, caption="What finished runs say of themselves", wrap=["what"])


def _alike(details: pd.Series) -> pd.Series:
    """Put # for numbers in remarks that differ in them alone."""
    shape = details.str.replace(r"\d[\d.,]*", "#", regex=True)
    differs = details.groupby(shape.to_numpy()).transform("nunique") > 1
    return details.where(~differs, shape)


def _more(rows: pd.DataFrame) -> str:
    """Say how many rows there are where not all are shown."""
    return f": the first {_MOST_ROWS} of {len(rows)}" if len(rows) > _MOST_ROWS else ""


def _flow_status(row: Any) -> str:
    if row.flow_status == "no_data":
        return "no steps on storage"
    if np.isnan(row.last_step):
        return f"{row.flow_status} at once"
    return f"{row.flow_status} after step {row.last_step:.0f}"
