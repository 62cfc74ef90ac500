"""The delay between the crossing of the edge and the oscillation that is predicted."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.measure.metrics.delay import crossing, delay
from analysis.measure.scoring import score
from analysis.measure.side_by_side import Scoring
from analysis.read import Trace

STEP = np.arange(600)


def delay_of(grown: int, *, crossed: int = 200, level: float = 1.0) -> tuple[float, bool]:
    """Delay where the oscillation has its predicted size from a step on, out of nothing before."""
    status = np.array(["ok"] * len(STEP))
    optimizer = {
        "step": STEP, "status": status, "effective_sharpness": np.where(crossed > STEP, 1.9, 2.1)
    }  # fmt: skip
    sigma = np.where(crossed > STEP, 0.0, 0.01)[:, None]
    real = np.where(grown > STEP, 1e-9, 0.0101 * level)[:, None]
    central = {"step": STEP, "status": status, "sigma_eigs": sigma, "displacement_sq": real}
    trace = Trace("r", {"discrete": optimizer, "central": central, "stable": {
        "step": STEP, "status": status, "sigma_eigs": np.zeros((600, 0)),
        "displacement_sq": np.zeros((600, 0)),
    }})  # fmt: skip
    rows = list(score(trace, Scoring(), [delay]))
    np.testing.assert_equal(rows[0]["delay"], rows[1]["delay"])  # the run's, whichever the flow
    return float(rows[0]["delay"]), bool(rows[0]["delay_observed"])


@pytest.mark.parametrize("late", [20, 100, 250])
def test_the_delay_put_in(late: int) -> None:
    found, observed = delay_of(200 + late)
    assert observed
    assert found == pytest.approx(late, abs=20)  # half the window of the average


def test_no_delay_without_an_oscillation_or_a_crossing() -> None:
    assert delay_of(600)[1] is False
    assert delay_of(300, level=0.5)[1] is False  # it oscillates, by less than predicted
    assert np.isnan(delay_of(300, crossed=0)[0])  # begins beyond the edge: not seen
    assert np.isnan(crossing(STEP, np.full(600, 1.9)))
