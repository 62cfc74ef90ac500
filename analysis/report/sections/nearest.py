"""First section: which flow is nearest, to what, and how far ahead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.draw import FigureSet, flow_styles, key_text
from analysis.infer import RANKED_BY, Ranking, cell_keys, cells, rank, skill
from analysis.measure import CLAIMS, NO_CLAIM, PHASES, TARGETS, Study, find_metric, some_runs
from analysis.report import page
from analysis.report.cells import cell_table, has_forecasts, records
from analysis.report.drawn import drawn
from analysis.report.numbers import DASH, p_text, percent, significant, with_limits

FORECAST_RUNS = 100  # of a workload, criterion and rule whose steps are read for forecasts


def nearest(found: Study, figures: FigureSet) -> str:
    """Rank all flows, say where cells disagree, and show skill where flows began anew."""
    flows = sorted(found.accuracy["flow"].astype("str").unique())
    if len(flows) < 2:
        return page.paragraph("These results hold one flow only: nothing to rank.")
    body = page.paragraph(
        "In each run flows are ranked from the nearest on, ties the mean of their ranks; a flow "
        "that ended before the run is behind all that lasted. Limits: 95%, runs drawn anew within "
        "cells."
    )
    for metric in RANKED_BY:
        ranking = rank(found.accuracy, metric)
        body += f"<h3>By {find_metric(metric).label}</h3>"
        body += page.paragraph(ranking.verdict, "" if ranking.agree else "warn")
        if not ranking.overall.empty:
            body += _ranks(ranking) + _cells(ranking, found.accuracy) + _pairs(ranking)
            caption = (
                "Share of runs whose error is at most so large; a flow that ended is below none."
            )
            figure, kind = figures.profiles(ranking), f"profiles-{metric}"
            body += drawn(figures, figure, caption, kind, found.accuracy)
            body += _shares(ranking)
    return body + _targets(found, flows) + _forecasts(found, figures)


def _ranks(ranking: Ranking) -> str:
    looks = flow_styles(ranking.overall)
    rows = [
        {
            "flow": looks[row.flow].label,
            "mean rank": with_limits(row.mean_rank, row.rank_low, row.rank_high),
            "nearest in cells": f"{row.cells_nearest} of {row.cells_ranked}",
            "runs": f"{row.n_runs}",
            "what it predicts": CLAIMS.get(row.flow, NO_CLAIM).words,
        }
        for row in records(ranking.overall)
    ]
    caption = "All cells with the same weight, of those in which a flow is defined"
    return page.table(
        pd.DataFrame(rows, dtype=object), caption=caption, text=["flow"], wrap=["what it predicts"]
    )


def _cells(ranking: Ranking, accuracy: pd.DataFrame) -> str:
    keys = cell_keys(accuracy)
    rows = []
    for cell, group in cells(ranking.cells, keys):
        row: dict[str, Any] = {key: key_text(cell[key]) for key in keys}
        row["runs"] = str(int(group["n_runs"].iloc[0]))
        for one in records(group):
            text = with_limits(one.mean_rank, one.rank_low, one.rank_high)
            row[one.flow] = page.Html(f"<b>{text}</b>") if one.nearest else text
        rows.append(row)
    flows = sorted(ranking.overall["flow"])
    filled = [{**row, **{f: row.get(f, DASH) for f in flows}} for row in rows]
    return cell_table(filled, keys, "Mean rank in each cell; bold: the nearest", keys)


def _pairs(ranking: Ranking) -> str:
    rows = [
        {
            "first": row.first, "second": row.second, "runs": f"{row.n}",
            "first nearer": with_limits(row.improvement, row.improvement_low, row.improvement_high),
            "cells for : against": f"{row.cells_for} : {row.cells_against}",
            "p": p_text(row.p_value), "p (Holm)": p_text(row.p_holm),
        }
        for row in records(ranking.pairs)
    ]  # fmt: skip
    caption = "Probability that the first is nearer in a run (a tie is a half)"
    return page.table(pd.DataFrame(rows, dtype=object), caption=caption, text=["first", "second"])


def _shares(ranking: Ranking) -> str:
    if ranking.shares.empty:
        return ""
    rows = [
        {
            "flow": row.flow, "runs": f"{row.n}", "sd of log error": significant(row.sd),
            "network": percent(row.network), "rule": percent(row.rule),
            "learning rate and setting": percent(row.learning_rate), "seed": percent(row.seed),
        }
        for row in records(ranking.shares)
    ]  # fmt: skip
    caption = "Where the variance of the log error comes from"
    return page.table(pd.DataFrame(rows, dtype=object), caption=caption, text=["flow"])


def _targets(found: Study, flows: list[str]) -> str:
    table = skill(some_runs(found.results, FORECAST_RUNS), by=[], targets=None)
    if table.empty:
        return ""
    names = [t for t in TARGETS if t in set(table["target"])]
    values = table.groupby(["flow", "target"])["error"].mean()
    rows = []
    for flow in flows:
        row: dict[str, object] = {"flow": flow}
        for name in names:
            value = float(values.get((flow, name), np.nan))
            text = significant(100 * value)
            claimed = name in CLAIMS.get(flow, NO_CLAIM).targets
            row[f"{TARGETS[name]} %"] = page.Html(f"<b>{text}</b>") if claimed else text
        rows.append(row)
    caption = (
        "Distance to each target, relative to how far the optimizer has come since the forecast "
        f"began, mean over lead times and phases, all runs ({FORECAST_RUNS} at random of a rule's "
        "that has more), of a window's mean at lead times at which one ends; bold: the target that "
        "its authors claim"
    )
    body = "<h3>To what</h3>" + page.table(
        pd.DataFrame(rows, dtype=object), caption=caption, text=["flow"]
    )
    return body


def _forecasts(found: Study, figures: FigureSet) -> str:
    if not has_forecasts(found.results.runs):
        return ""
    body = "<h3>How far ahead</h3>"
    for cell, table in cells(skill(some_runs(found.results, FORECAST_RUNS),
                                   by=["workload", "criterion", "rule"]),
                             ["workload", "criterion", "rule"]):  # fmt: skip
        phases = [p for p in PHASES if (table["phase"] == p).any()]
        name = " · ".join(str(v) for v in cell.values())
        caption = (
            f"{name}: skill against lead time, over the stable flow and over persistence, all runs "
            f"({FORECAST_RUNS} at random where there are more)."
        )
        body += drawn(figures, figures.skills(table, phases), caption, "skill", table)
    return body
