"""The figure over all cells: every run at its value, the median of each flow on its cell's line."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from synthetic import study_runs, write_sweep

import analysis


@pytest.fixture(scope="module")
def accuracy(tmp_path_factory):
    folder = write_sweep(tmp_path_factory.mktemp("cells"), study_runs(), name="some")
    return analysis.accuracy(folder)


def _drawn(ax):
    """Points by line and colour: all runs (small), and medians (large)."""
    runs, medians = {}, {}
    for line in ax.lines:
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        if len(x) == 0:
            continue
        place = runs if line.get_marker() == "." else medians
        place[round(float(y[0])), line.get_color()] = np.sort(x)
    return runs, medians


def test_every_run_and_the_median_of_its_cell(accuracy):
    ax = analysis.plot_cells(accuracy, "final_distance", Figure().subplots(), by=["rule", "lr"])
    names = [label.get_text() for label in ax.get_yticklabels()]
    runs, medians = _drawn(ax)
    handles, labels = ax.get_legend_handles_labels()
    colours = {label: handle.get_color() for handle, label in zip(handles, labels, strict=True)}
    finished = accuracy[accuracy["run_status"] == "finished"]
    cells = 0
    for (rule, lr, flow), rows in finished.groupby(["rule", "lr", "flow"], observed=True):
        key = names.index(f"{rule}, {lr:g}"), colours[f"{flow} flow"]
        expected = np.sort(100 * rows["final_distance"].to_numpy())
        np.testing.assert_allclose(runs[key], expected)
        np.testing.assert_allclose(medians[key], [np.median(expected)])
        cells += 1
    assert len(runs) == len(medians) == cells > 4
    assert ax.get_xlabel() == "final distance (%)"
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first cell on top


def test_what_is_the_optimizers_is_drawn_once(accuracy):
    ax = analysis.plot_cells(accuracy, "edge_fraction", Figure().subplots(), by=["rule", "lr"])
    runs, medians = _drawn(ax)
    finished = accuracy[accuracy["run_status"] == "finished"]
    count = finished.drop_duplicates("run_id")["edge_fraction"].notna().sum()
    assert sum(map(len, runs.values())) == count
    assert len({colour for _, colour in medians}) == 1
    assert ax.get_legend() is None


def test_a_column_that_is_not_there_is_refused(accuracy):
    with pytest.raises(ValueError, match="by must be columns of the frame, got 'colour'"):
        analysis.plot_cells(accuracy, by="colour")
