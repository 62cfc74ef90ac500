"""The numbers of a study's page: scored from its results, kept beside the page, written into it.

    python docs/make_study.py momentum results/momentum    # score anew, then write
    python docs/make_study.py momentum                     # write from docs/data/momentum.csv.gz
    python docs/make_study.py reproduction results/reproduction --add --bandwidth 10

A page `docs/NAME.md` says where a table goes and of which metric, and everything between the two
comments is replaced:

    <!-- study: final_distance -->
    <!-- end of table -->

A table has a row for each cell (the runs that differ in their seed only) and a column for each
flow: the mean over the runs and its 95% interval, in per cent where the metric is a ratio, and how
many runs the flow did not finish; nothing where it is not defined. Of a number of steps that may
be longer than the run it is the median, and in parentheses the least and the most of the runs:
limits of a median need more than five of them. Other tables are

    <!-- study: rank final_distance -->   mean ranks of the flows, over all cells (`analysis.rank`)
    <!-- study: peaks final_distance -->  by the largest effective sharpness, gradient descent only
    <!-- study: targets -->               errors to every target over the stable flow's, at the end
    <!-- study: skill midpoint -->        errors to a target by lead time and phase of training
    <!-- study: figure final_distance --> every run's value, drawn: docs/figures/NAME-METRIC.png
    <!-- study: scatter final_distance --> against the largest sharpness: NAME-METRIC-peaks.png

`--add` keeps the runs that the page has already beside those of the folder, so that a long study
can be made in several sittings and on several machines; of a run that is in both, the folder's
scores count. Refused where the two vary in different hyperparameters, which would pool other
cells, and for a page with forecasts. `--bandwidth` is that of `analysis.accuracy`, for short runs.

`docs/data/NAME.csv.gz` has a row per run and flow, `docs/data/NAME-skill.csv.gz`, for a study whose
page asks for it, what `analysis.skill` returns, at the leads that are shown; pandas opens them as
they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from page_tables import filled, markdown, places
from study_peaks import draw_peaks, peaks

import analysis
from analysis.infer import cell_keys
from analysis.measure import DEFAULT_BANDWIDTH, TARGETS, find_metric
from analysis.report.numbers import significant

DOCS = Path(__file__).resolve().parent
DATA = DOCS / "data"
FIGURES = DOCS / "figures"
CONTEXT = ("run_id", "seed", "flow", "run_status", "flow_status", "last_step")
FORECASTS = ("targets", "skill")
"""Tables made from forecasts; any other is made from scores."""
LEADS = (1, 5, 21, 50)
"""Lead times that are kept and shown, of those that `analysis.skill` has, beside the last."""


def score(folder: str, bandwidth: float = DEFAULT_BANDWIDTH) -> pd.DataFrame:
    """Return what `analysis.accuracy` says of a results folder, without what is the same in all."""
    frame = analysis.accuracy(folder, bandwidth=bandwidth)
    metrics = [metric.name for metric in analysis.METRICS if metric.name in frame]
    observed = [name for name in map(str, frame) if name.endswith("_observed")]
    keys = cell_keys(frame)
    kept = [*CONTEXT[:1], *keys, *CONTEXT[1:], *metrics, *observed]
    return frame[[name for name in kept if name in frame]].reset_index(drop=True)


def score_forecasts(folder: str) -> pd.DataFrame:
    """Return what `analysis.skill` says of a results folder at some leads, to every target."""
    frame = analysis.skill(folder, targets=None)
    cell = [*keys_of(frame), "restart_every"] if "restart_every" in frame else keys_of(frame)
    cell = [key for key in dict.fromkeys(cell) if key != "lead"]
    last = frame.groupby([*cell, "target"], dropna=False)["lead"].transform("max")
    return frame[frame["lead"].isin(LEADS) | (frame["lead"] == last)].reset_index(drop=True)


def keep(frame: pd.DataFrame, name: str) -> Path:
    """Write a table beside the page: the same table is the same bytes."""
    DATA.mkdir(exist_ok=True)
    file = DATA / f"{name}.csv.gz"
    ordered = frame.sort_values(["run_id", "flow"]) if "run_id" in frame else frame
    ordered.to_csv(
        file, index=False, float_format="%.6g", compression={"method": "gzip", "mtime": 1}
    )
    return file


def together(scores: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return scores, and those that are kept of a study for runs that are not among them.

    Raises `ValueError` if the cells of the two are made by other columns.
    """
    file = DATA / f"{name}.csv.gz"
    if not file.exists():
        return scores
    kept = pd.read_csv(file)
    keys, before = (_columns_of_cells(frame) for frame in (scores, kept))
    if keys != before:
        raise ValueError(f"runs to add must vary in {before}, as those of {file.name}, got {keys}")
    return pd.concat([scores, kept[~kept["run_id"].isin(scores["run_id"])]], ignore_index=True)


def _columns_of_cells(scores: pd.DataFrame) -> list[str]:
    names = [str(name) for name in scores]
    return names[names.index("run_id") + 1 : names.index("seed")]


def keys_of(frame: pd.DataFrame) -> list[str]:
    """Return the columns that make a cell and are not the same in all."""
    names = [str(name) for name in frame]
    keys = _columns_of_cells(frame) if "run_id" in names else names[: names.index("flow")]
    return [key for key in keys if key != "flows" and frame[key].nunique(dropna=False) > 1]


def table(frame: pd.DataFrame, metric: str) -> str:
    """Return a metric as a Markdown table: cells down, flows across.

    Raises `ValueError` for a metric that the scores do not have.
    """
    if metric not in frame:
        raise ValueError(f"metric must be a column of the scores, got {metric!r}")
    keys = keys_of(frame)
    filled = _in_words(frame, keys)
    shown = find_metric(metric)
    summary = analysis.summarize(filled, by=keys, metrics=[metric])
    compared = summary["flow"] != metric.removeprefix("ratio_to_")
    flows = [] if shown.per_run else sorted(summary.loc[compared, "flow"].unique())
    unit = " %" if shown.percent else ""
    heads = [*keys, "runs", *(flows or [f"{shown.label}{unit}"])]
    lines = []
    runs = filled.set_index([*keys, "flow"]).sort_index()
    for cell, rows in summary.groupby(keys, sort=False, observed=True):
        by_flow = rows.set_index("flow")
        numbers = [
            _number(by_flow.loc[flow], runs.loc[[(*cell, flow)]], shown)
            if flow in by_flow.index
            else ""
            for flow in flows or by_flow.index[:1]
        ]
        lines.append([*map(str, cell), str(int(rows["n_runs"].max())), *numbers])
    return markdown(heads, lines, len(keys))


def _in_words(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return a frame with its keys as text."""
    return frame.assign(**{key: frame[key].map(_text) for key in keys})


def _text(value: object) -> str:
    """Return a value of a key as text; what a rule does not have is empty."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(row: pd.Series, runs: pd.DataFrame, metric: analysis.Metric) -> str:
    """Return a mean with its interval, and how many runs the flow left early."""
    centre = row["median"] if np.isnan(row["mean"]) else row["mean"]
    if np.isnan(centre):
        return "-"

    def said(value: float) -> str:
        if metric.censored and np.isinf(value):
            return "never"
        return significant(100 * value if metric.percent else value)

    text, ends = said(centre), (row["ci_low"], row["ci_high"])
    if metric.censored:
        defined = runs[runs[metric.name].notna()]
        is_observed = defined[f"{metric.name}_observed"].astype(bool)
        values = defined[metric.name].where(is_observed, np.inf)
        if values.nunique() > 1:
            text += f" ({said(values.min())} to {said(values.max())})"
    elif not np.isnan(ends).all():  # as of one run
        text += f" [{', '.join(map(said, ends))}]"
    ended = int(row["n_stopped"] + row["n_flow_diverged"])
    return f"{text}, {ended} ended early" if ended else text


def figure(scores: pd.DataFrame, name: str, metric: str) -> Path:
    """Draw every run of a study, a line per cell; return the file."""
    mpl.use("Agg")
    keys = keys_of(scores)
    analysis.plot_cells(_in_words(scores, keys), metric, by=keys)
    file = FIGURES / f"{name}-{metric}.png"
    plt.savefig(file, dpi=100)
    plt.close()
    return file


def ranks(frame: pd.DataFrame, metric: str) -> str:
    """Return the mean ranks of the flows over all cells, 1 the nearest, and the verdict."""
    found = analysis.rank(frame, metric, by=keys_of(frame))
    rows = []
    for row in found.overall.itertuples():
        limits = f"{row.mean_rank:.1f} [{row.rank_low:.1f}, {row.rank_high:.1f}]"
        rows.append([str(row.flow), limits, f"{row.cells_nearest} of {row.cells_ranked}"])
    made = markdown(["flow", "mean rank", "nearest in cells"], rows, 1)
    return f"{made}\n\n{found.verdict}"


def targets(forecasts: pd.DataFrame) -> str:
    """Return, for every target, how the flows' errors compare with the stable flow's.

    Of runs of one forecast, at their end: medians over the cells in which all flows are defined,
    or else flows would be compared over different cells.
    """
    runs = forecasts[_restarts(forecasts) == 0]
    keys = [*keys_of(runs.drop(columns=["target"])), "target"]
    last = runs["lead"] == runs.groupby(keys, dropna=False)["lead"].transform("max")
    ends = _in_words(runs[last], keys)
    wide = ends.pivot_table(index=keys, columns="flow", values="error", sort=False)
    whole = wide.dropna()
    ratios = whole.div(whole["stable"], axis=0).groupby("target", sort=False)
    sizes, medians = ratios.size(), ratios.median()
    names = [name for name in TARGETS if name in medians.index]
    rows = [[name, str(sizes[name]), *_least_in_bold(medians.T[name])] for name in names]
    return markdown(["target", "cells", *map(str, medians.columns)], rows, 1)


def skill(forecasts: pd.DataFrame, target: str) -> str:
    """Return the errors of forecasts to a target by phase of training and lead time, in per cent.

    Raises `ValueError` for a target that the forecasts do not have.
    """
    known = sorted(forecasts["target"].unique())
    if target not in known:
        raise ValueError(f"target must be one of {known}, got {target!r}")
    runs = forecasts[(_restarts(forecasts) > 0) & (forecasts["target"] == target)]
    shown = runs[runs["lead"].isin(LEADS)]
    return _flows_across(shown, [*keys_of(runs.drop(columns=["target"])), "phase", "lead"])


def _restarts(forecasts: pd.DataFrame) -> pd.Series:
    """Return `restart_every`, 0 for runs from before there was such a setting."""
    if "restart_every" not in forecasts:
        return pd.Series(0, index=forecasts.index)
    return forecasts["restart_every"].fillna(0)


def _flows_across(frame: pd.DataFrame, keys: list[str]) -> str:
    """Return errors in per cent as a Markdown table, flows across, the least of a row in bold."""
    filled = _in_words(frame, keys)
    wide = filled.pivot_table(index=keys, columns="flow", values="error", sort=False)
    rows = []
    for cell, errors in wide.iterrows():
        names = cell if isinstance(cell, tuple) else (cell,)
        rows.append([*map(str, names), *_least_in_bold(100 * errors)])
    return markdown([*keys, *map(str, wide.columns)], rows, len(keys))


def _least_in_bold(numbers: pd.Series) -> list[str]:
    least = numbers.min()
    return [f"**{significant(x)}**" if x == least else significant(x) for x in numbers]


def _label(metric: str) -> str:
    label = find_metric(metric).label
    return label[0].upper() + label[1:]


def write(
    page: str, scores: pd.DataFrame, forecasts: pd.DataFrame | None = None, name: str = ""
) -> str:
    """Return a page's text with its tables made anew from scores and forecasts.

    `name`: of the study, after which the files of its figures are named.
    """

    def made(what: str, of: str) -> str:
        if what in FORECASTS:
            if forecasts is None:
                raise ValueError(f"{what} needs forecasts, which are not beside the page")
            return targets(forecasts) if what == "targets" else skill(forecasts, of)
        if what == "rank":
            return ranks(scores, of)
        if what == "peaks":
            return peaks(scores, of)
        if what == "figure":
            return f"![{_label(of)} of every run, by cell](figures/{name}-{of}.png)"
        if what == "scatter":
            return f"![{_label(of)} against the peak sharpness](figures/{name}-{of}-peaks.png)"
        return table(scores, what)

    return filled(page, "study", made)


FIGURE_OF = {"figure": figure, "scatter": draw_peaks}


def main() -> None:
    """Score if there are results, then write the page."""
    as_written = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("name", help="of the study and its page")
    parser.add_argument("results", nargs="?", help="folder or URI; without it, docs/data is used")
    parser.add_argument("--add", action="store_true", help="keep the runs that there are as well")
    parser.add_argument("--bandwidth", type=float, default=DEFAULT_BANDWIDTH, help="in steps")
    options = parser.parse_args()
    page = DOCS / f"{options.name}.md"
    text = page.read_text()
    asked = any(what in FORECASTS for what, _ in places(text, "study"))
    if options.add and asked:
        parser.error("--add must be of a study without forecasts, which are of all its runs")
    if options.results:
        scores = score(options.results, options.bandwidth)
        print(keep(together(scores, options.name) if options.add else scores, options.name))
        if asked:
            print(keep(score_forecasts(options.results), f"{options.name}-skill"))
    scores, forecasts = read(options.name)
    page.write_text(write(text, scores, forecasts, options.name))
    for what, of in places(text, "study"):
        if what in FIGURE_OF:
            FIGURES.mkdir(exist_ok=True)
            print(FIGURE_OF[what](scores, options.name, of))
    print(page)


def read(name: str) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return the scores that are kept for a study, and its forecasts if there are any."""
    forecasts = DATA / f"{name}-skill.csv.gz"
    kept = pd.read_csv(forecasts) if forecasts.exists() else None
    return pd.read_csv(DATA / f"{name}.csv.gz"), kept


if __name__ == "__main__":
    main()
