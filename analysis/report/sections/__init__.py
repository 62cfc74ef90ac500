"""The report's sections: each takes a `Study` and returns HTML."""

from collections.abc import Callable

import pandas as pd

from analysis.draw import FigureSet
from analysis.measure import Study
from analysis.report.sections.comparison import comparison
from analysis.report.sections.failures import bandwidths, failures
from analysis.report.sections.figures import (
    against,
    distances,
    horizons,
    single_runs,
    variances,
)
from analysis.report.sections.nearest import nearest
from analysis.report.sections.runs import runs, shown_runs
from analysis.report.sections.summary import summary

Section = Callable[[Study, pd.DataFrame, FigureSet], str]
"""A part of the page: HTML from a study, its accuracy and the figures."""

__all__ = [
    "Section",
    "against",
    "bandwidths",
    "comparison",
    "distances",
    "failures",
    "horizons",
    "nearest",
    "runs",
    "shown_runs",
    "single_runs",
    "summary",
    "variances",
]
