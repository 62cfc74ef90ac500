"""How the values of a hyperparameter are spread over the x axis."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from analysis.draw import HyperparameterAxis


def axis_of(values: list[Any], name: str = "x") -> HyperparameterAxis:
    return HyperparameterAxis(pd.DataFrame({name: values}), name)


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0.9, 0.99, 0.999], "decay"),
        ([0.9, 0.95], "decay"),
        ([0.9, 0.92], "linear"),
        ([0.1, 0.5], "linear"),
        ([1e-8, 1e-4], "log"),
        ([0.0, 0.9], "linear"),
        ([1, 2, 4], "linear"),
        ([True, False], "category"),
        (["constant", "linear_warmup:100"], "category"),
        ([0.9, None], "category"),
        ([], "log"),
    ],
)
def test_the_scale_fits_the_values(values: list[Any], scale: str) -> None:
    if not values:
        return_value = HyperparameterAxis(pd.DataFrame({"x": pd.Series([], dtype="float64")}), "x")
        assert return_value.scale == scale
        return
    assert axis_of(values).scale == scale


def test_the_learning_rate_is_always_logarithmic() -> None:
    assert axis_of([0.1, 0.2], "lr").scale == "log"
    assert axis_of([0.1, 0.2], "lr").label == "learning rate"


def test_equal_steps_of_a_decay_are_equally_far_apart() -> None:
    axis, ax = axis_of([0.9, 0.99, 0.999, 0.9999]), plt.subplots()[1]
    ax.plot(axis.places(pd.Series(axis.values)), [1, 2, 3, 4])
    axis.apply(ax)
    ax.figure.canvas.draw()
    pixels = ax.transData.transform([(v, 1.0) for v in axis.values])[:, 0]
    np.testing.assert_allclose(np.diff(pixels), np.diff(pixels)[0], rtol=1e-6)
    assert (np.diff(pixels) > 0).all()  # growing to the right
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.9", "0.99", "0.999", "0.9999"]


def test_categories_stand_in_order_and_null_last() -> None:
    axis, ax = axis_of([None, 0.9, 0.5]), plt.subplots()[1]
    assert axis.places(pd.Series([0.5, None, 0.9])).tolist() == [0.0, 2.0, 1.0]
    axis.apply(ax)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.5", "0.9", "-"]


def test_many_values_have_few_ticks() -> None:
    axis, ax = axis_of(list(1 - np.geomspace(0.5, 1e-4, 40))), plt.subplots()[1]
    axis.apply(ax)
    assert len(ax.get_xticks()) == 6
