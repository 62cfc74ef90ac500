"""Figures: of one run, over many runs, and the whole figures of a report."""

from analysis.draw.by_cell import plot_cells
from analysis.draw.charts import chart_json
from analysis.draw.figure_set import FigureSet, ranked_runs, run_title
from analysis.draw.hyperparameter_axis import HyperparameterAxis
from analysis.draw.many_runs import (
    plot_accuracy,
    plot_covariance,
    plot_distance_spread,
    plot_horizons,
    plot_profiles,
    plot_skill,
)
from analysis.draw.one_run import plot_distance, plot_loss, plot_sharpness, plot_variance
from analysis.draw.panels import Panel, all_rows, batches, key_text, panels, titles, with_keys
from analysis.draw.style import flow_styles

__all__ = [
    "FigureSet",
    "HyperparameterAxis",
    "Panel",
    "all_rows",
    "batches",
    "chart_json",
    "flow_styles",
    "key_text",
    "panels",
    "plot_accuracy",
    "plot_cells",
    "plot_covariance",
    "plot_distance",
    "plot_distance_spread",
    "plot_horizons",
    "plot_loss",
    "plot_profiles",
    "plot_sharpness",
    "plot_skill",
    "plot_variance",
    "ranked_runs",
    "run_title",
    "titles",
    "with_keys",
]
