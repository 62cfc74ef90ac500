"""Section that says which flow is nearer, on the same runs."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.infer import compare, main_flow, panel_keys
from analysis.measure import find_metric
from analysis.report import page
from analysis.report.cells import cell_table, key_columns, records
from analysis.report.fitting import PAGE_ROWS, fitted
from analysis.report.numbers import p_text, with_limits
from analysis.report.overview import shown_metrics


def comparison(accuracy: pd.DataFrame) -> str:
    """Build the tables that compare the main flow with every other one on the same runs."""
    accuracy = fitted(accuracy, PAGE_ROWS).accuracy
    flows, keys = sorted(accuracy["flow"].astype("str").unique()), panel_keys(accuracy)
    first = main_flow(accuracy)
    compared = [m.name for m in shown_metrics("comparison", accuracy)]
    if len(flows) < 2:
        return page.paragraph("These results hold one flow only: nothing to compare.")
    body = page.paragraph(
        "Both flows on the same run, finished runs only. A win is a smaller error; a ratio below 1 "
        "says the same; a flow that ended before the run is behind one that lasted. p: Wilcoxon's "
        "signed-rank test; Holm: corrected for all rows of a table."
    )
    for other in flows:
        if other == first:
            continue
        frame = compare(accuracy, first, other, keys, compared)
        rows = [
            key_columns(row, keys)
            | {
                "error": find_metric(str(row.metric)).label,
                "pairs": f"{row.n}",
                f"{first} wins": _win(row),
                f"median ratio {first} / {other}": with_limits(
                    row.median_ratio, row.ratio_low, row.ratio_high
                ),
                "p": p_text(row.p_value),
                "p (Holm)": p_text(row.p_holm),
                "left out": _left_out(row),
            }
            for row in records(frame)
        ]
        text = [*keys, "error", "left out"]
        body += cell_table(rows, keys, f"{first} against {other}", text)
    return body


def _win(row: Any) -> str:
    if row.n == 0:
        return "-"
    limits = f"[{100 * row.win_low:.0f}, {100 * row.win_high:.0f}]"
    return page.with_small(f"{100 * row.win_rate:.0f}%", limits)


def _left_out(row: Any) -> str:
    counts = (
        (row.n_diverged, "diverged"), (row.n_failed, "failed"),
        (row.n_loss_undefined, "without derivatives"), (row.n_undefined, "undefined"),
    )  # fmt: skip
    words = [f"{n} {word}" for n, word in counts if n]
    ended = ((row.n_stopped, "flow stopped"), (row.n_flow_diverged, "flow diverged"))
    words += [f"({n} {word})" for n, word in ended if n]
    return ", ".join(words)
