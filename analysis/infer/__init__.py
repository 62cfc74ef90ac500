"""Over runs: confidence intervals, survival curves, summaries, comparisons, trends and fits.

Hands out these functions and what they go by unless told: `LEVEL` (of intervals), `RESAMPLES` and
`DEFAULT_SEED` (of the bootstrap), `PLACE`, the columns that say where a cell is, `RANKED_BY`, the
errors that a report ranks by, and `MOST_VALUES` of a hyperparameter before they are grouped.
"""

from analysis.infer.cells import (
    PLACE,
    cell_keys,
    cells,
    check_accuracy,
    is_numeric,
    main_flow,
    panel_keys,
    swept,
)
from analysis.infer.comparison import compare
from analysis.infer.covariance import covariance_fit
from analysis.infer.grouping import MOST_VALUES, Grouping, grouped
from analysis.infer.intervals import LEVEL, RESAMPLES, mean_interval, median_interval, wilson
from analysis.infer.ranking import RANKED_BY, Ranking, rank
from analysis.infer.sequential import median_sequence, ratio_precision
from analysis.infer.skill import skill
from analysis.infer.summary import DEFAULT_SEED, summarize
from analysis.infer.survival import kaplan_meier, median_horizon
from analysis.infer.trends import lr_trend, trends

__all__ = [
    "DEFAULT_SEED",
    "LEVEL",
    "MOST_VALUES",
    "PLACE",
    "RANKED_BY",
    "RESAMPLES",
    "Grouping",
    "Ranking",
    "cell_keys",
    "cells",
    "check_accuracy",
    "compare",
    "covariance_fit",
    "grouped",
    "is_numeric",
    "kaplan_meier",
    "lr_trend",
    "main_flow",
    "mean_interval",
    "median_horizon",
    "median_interval",
    "median_sequence",
    "panel_keys",
    "rank",
    "ratio_precision",
    "skill",
    "summarize",
    "swept",
    "trends",
    "wilson",
]
