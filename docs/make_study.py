"""The numbers of a study's page: scored from its results, kept beside the page, written into it.

    python docs/make_study.py momentum results/momentum    # score anew, then write
    python docs/make_study.py momentum                     # write from docs/data/momentum.csv.gz

A page `docs/NAME.md` says where a table goes and of which metric, and everything between the two
comments is replaced:

    <!-- study: final_distance -->
    <!-- end of table -->

A table has a row for each cell (the runs that differ in their seed only) and a column for each
flow: the mean over the runs and its 95% interval, in per cent where the metric is a ratio, and how
many runs the flow did not finish. `docs/data/NAME.csv.gz` has a row per run and flow; pandas opens
it as it is.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import pandas as pd

import analysis
from analysis.infer import cell_keys
from analysis.report.numbers import significant

DOCS = Path(__file__).resolve().parent
DATA = DOCS / "data"
CONTEXT = ("run_id", "seed", "flow", "run_status", "flow_status", "last_step")
PLACE = re.compile(r"(?s)<!-- study: (\w+) -->\n(.*?)<!-- end of table -->")


def score(folder: str) -> pd.DataFrame:
    """Return what `analysis.accuracy` says of a results folder, without what is the same in all."""
    frame = analysis.accuracy(folder)
    metrics = [metric.name for metric in analysis.METRICS if metric.name in frame]
    observed = [name for name in map(str, frame) if name.endswith("_observed")]
    keys = cell_keys(frame)
    kept = [*CONTEXT[:1], *keys, *CONTEXT[1:], *metrics, *observed]
    return frame[[name for name in kept if name in frame]].reset_index(drop=True)


def keep(frame: pd.DataFrame, name: str) -> Path:
    """Write the scores beside the page: the same scores are the same bytes."""
    DATA.mkdir(exist_ok=True)
    file = DATA / f"{name}.csv.gz"
    ordered = frame.sort_values(["run_id", "flow"])
    ordered.to_csv(
        file, index=False, float_format="%.6g", compression={"method": "gzip", "mtime": 1}
    )
    return file


def keys_of(frame: pd.DataFrame) -> list[str]:
    """Return the columns that make a cell: those between the run's id and its seed."""
    names = [str(name) for name in frame]
    return names[names.index("run_id") + 1 : names.index("seed")]


def table(frame: pd.DataFrame, metric: str) -> str:
    """Return a metric as a Markdown table: cells down, flows across.

    Raises `ValueError` for a metric that the scores do not have.
    """
    if metric not in frame:
        raise ValueError(f"metric must be a column of the scores, got {metric!r}")
    keys = [key for key in keys_of(frame) if frame[key].nunique(dropna=False) > 1]
    filled = frame.assign(**{key: frame[key].map(_text) for key in keys})
    shown = next(m for m in analysis.METRICS if m.name == metric)
    summary = analysis.summarize(filled, by=keys, metrics=[metric])
    flows = [] if shown.per_run else sorted(summary["flow"].unique())
    heads = [*keys, "runs", *(flows or [shown.name])]
    rule = "|" + " --- |" * len(keys) + " ---: |" * (len(heads) - len(keys))
    lines = [f"| {' | '.join(heads)} |", rule]
    for cell, rows in summary.groupby(keys, sort=False, observed=True):
        by_flow = rows.set_index("flow")
        numbers = [_number(by_flow.loc[flow], shown.percent) for flow in flows or by_flow.index[:1]]
        runs = str(int(rows["n_runs"].max()))
        lines.append(f"| {' | '.join([*map(str, cell), runs, *numbers])} |")
    return "\n".join(lines)


def _text(value: object) -> str:
    """Return a value of a key as text; what a rule does not have is empty."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(row: pd.Series, percent: bool) -> str:
    """Return a mean with its interval, and how many runs the flow left early."""
    factor = 100 if percent else 1
    centre = row["median"] if np.isnan(row["mean"]) else row["mean"]
    if np.isnan(centre):
        return "-"
    limits = [significant(factor * row[end]) for end in ("ci_low", "ci_high")]
    text = f"{significant(factor * centre)} [{limits[0]}, {limits[1]}]"
    ended = int(row["n_stopped"] + row["n_flow_diverged"])
    return f"{text}, {ended} ended early" if ended else text


def write(page: str, frame: pd.DataFrame) -> str:
    """Return a page's text with its tables made anew from the scores."""

    def made(place: re.Match[str]) -> str:
        return f"<!-- study: {place[1]} -->\n{table(frame, place[1])}\n<!-- end of table -->"

    return PLACE.sub(made, page)


def main() -> None:
    """Score if there are results, then write the page."""
    as_written = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("name", help="of the study and its page")
    parser.add_argument("results", nargs="?", help="folder or URI; without it, docs/data is used")
    options = parser.parse_args()
    if options.results:
        print(keep(score(options.results), options.name))
    page = DOCS / f"{options.name}.md"
    page.write_text(write(page.read_text(), pd.read_csv(DATA / f"{options.name}.csv.gz")))
    print(page)


if __name__ == "__main__":
    main()
