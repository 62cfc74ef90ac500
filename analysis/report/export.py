"""Tables as files that other programs read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.infer import (
    PLACE,
    RANKED_BY,
    compare,
    covariance_fit,
    grouped,
    is_numeric,
    lr_trend,
    main_flow,
    panel_keys,
    rank,
    skill,
    summarize,
    swept,
    trends,
)
from analysis.measure import Study
from analysis.read import REFERENCE_FLOW, configuration_of
from analysis.report.cells import has_forecasts

FORMATS = ("csv", "parquet", "latex", "markdown")
_ENDINGS = {"csv": "csv", "parquet": "parquet", "latex": "tex", "markdown": "md"}


def study_tables(found: Study) -> dict[str, pd.DataFrame]:
    """All tables of a study by name: accuracy, summary, comparison, trend, variance, ...

    `comparison` is of the main flow (central, if there) with the reference flow; one with another
    flow is called `comparison_<flow>`, a trend with another hyperparameter `trend_<name>`. `rank`,
    `rank_cells`, `rank_pairs`, `rank_profiles` and `rank_shares` are the parts of `rank` for the
    errors that the report ranks by; `skill` is there where flows began anew, and is of all finished
    runs, whose steps are read again for it: the page's is of at most 100 of a workload, criterion
    and rule. `accuracy` has every run and flow; where a hyperparameter has many values, the others
    have groups of them.

    >>> sorted(study_tables(study(load(example_sweep))))[:6]
    ['accuracy', 'comparison', 'lr_trend', 'problems', 'rank', 'rank_cells']
    """
    accuracy = found.accuracy
    shown = grouped(accuracy).frame
    flows, first = sorted(accuracy["flow"].astype("str").unique()), main_flow(accuracy)
    tables = {
        "accuracy": accuracy,
        "summary": summarize(shown),
        "lr_trend": lr_trend(grouped(accuracy, keep=["lr"]).frame),
        "variance": covariance_fit(found.points, panel_keys(accuracy)),
        "sensitivity": found.sensitivity.rename(columns=str).reset_index(),
        "problems": found.results.problems,
    }
    for other in flows:
        if other != first:
            name = "comparison" if other == REFERENCE_FLOW else f"comparison_{other}"
            tables[name] = compare(shown, first, other)
    for x in swept(accuracy):
        if x != "lr" and is_numeric(accuracy[x]):
            tables[f"trend_{x}"] = trends(grouped(accuracy, keep=[x]).frame, x)
    if len(flows) > 1:
        tables |= _rank_tables(shown)
    if has_forecasts(found.results.runs):
        tables["skill"] = skill(found.results, targets=None)
    return tables


def _rank_tables(accuracy: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Parts of `rank` by name, with the error that was ranked by in the column `metric`."""
    found = [rank(accuracy, metric) for metric in RANKED_BY]
    parts = {"rank": "overall"} | {
        f"rank_{name}": name for name in ("cells", "pairs", "profiles", "shares")
    }
    return {
        table: pd.concat(
            [getattr(one, part).assign(metric=one.metric) for one in found], ignore_index=True
        )
        for table, part in parts.items()
    }


def write_tables(tables: Mapping[str, pd.DataFrame], folder: Path, kind: str) -> list[Path]:
    """Write tables as `<name>.<ending>`; Parquet keeps units as field metadata.

    Raises `ValueError` for another kind than those of `FORMATS`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, frame in tables.items():
        if kind == "parquet":
            file = folder / f"{name}.parquet"
            pq.write_table(_with_units(frame), file)
        else:
            file = folder / f"{name}.{_ENDINGS.get(kind, kind)}"
            file.write_text(table_text(frame, kind), encoding="utf-8")
        written.append(file)
    return written


def table_text(frame: pd.DataFrame, kind: str) -> str:
    """Format a frame as csv (all digits), or as latex or markdown (four significant figures).

    Empty columns and the constant columns of the configuration are left out of the last two.

    >>> print(table_text(pd.DataFrame({"flow": ["central"], "n": [2], "mean": [0.012345]}),
    ...                  "markdown"))
    | flow | n | mean |
    | --- | --- | --- |
    | central | 2 | 0.01235 |
    <BLANKLINE>
    """
    if kind not in FORMATS or kind == "parquet":
        raise ValueError(f"format must be one of {list(FORMATS)}, got {kind!r}")
    if kind == "csv":
        return frame.to_csv(index=False)
    texts = pd.DataFrame({c: frame[c].map(_cell).astype("str") for c in _worth_printing(frame)})
    if kind == "latex":
        return _latex(texts)
    lines = [list(texts.columns), ["---"] * len(texts.columns), *texts.to_numpy().tolist()]
    return "".join("| " + " | ".join(t.replace("|", r"\|") for t in row) + " |\n" for row in lines)


def _worth_printing(frame: pd.DataFrame) -> list[str]:
    """Name the columns to print: results always, configuration only where it tells rows apart."""
    always = {*PLACE, "lr", "flow", "metric", "n", "mean"}
    context = {*configuration_of(frame), "sweep", "seed"} - always

    def varies(column: str) -> bool:
        return len(frame) < 2 or frame[column].astype("str").nunique() > 1

    return [
        c
        for c in frame.columns
        if c in always or (frame[c].notna().any() and (c not in context or varies(c)))
    ]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return "" if value is None or value is pd.NA else str(value)


def _latex(texts: pd.DataFrame) -> str:
    def line(cells: list[str]) -> str:
        return " & ".join(_escape(c) for c in cells) + r" \\" + "\n"

    body = "".join(line(row) for row in texts.to_numpy().tolist())
    columns = "l" * len(texts.columns)
    return (
        f"\\begin{{tabular}}{{{columns}}}\n\\hline\n{line(list(texts.columns))}\\hline\n"
        f"{body}\\hline\n\\end{{tabular}}\n"
    )


def _escape(text: str) -> str:
    for mark in "&%$#_{}":
        text = text.replace(mark, f"\\{mark}")
    return text


def _with_units(frame: pd.DataFrame) -> pa.Table:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    units = frame.attrs.get("units", {})
    fields = [
        f.with_metadata({"unit": units[f.name]}) if f.name in units else f for f in table.schema
    ]
    return table.cast(pa.schema(fields, metadata=table.schema.metadata))
