"""Who was nearer in a run: errors, ties, and flows that ended."""

from __future__ import annotations

import numpy as np

from analysis.infer.order import Scores, order


def test_order_of_runs() -> None:
    def one(error: float, last: float | None = None) -> Scores:
        ended = last is not None
        return Scores(*map(np.atleast_1d, (error, ended, 600.0 if last is None else last)))

    cases = [
        (one(1.0), one(2.0), -1), (one(2.0), one(1.0), 1), (one(1.0), one(1.0 + 1e-8), 0),
        (one(0.0), one(0.0), 0), (one(np.inf), one(1.0), 1), (one(np.inf), one(np.inf), 0),
        (one(9.0), one(1.0, 300), -1), (one(9.0), one(np.nan, 10), -1),
        (one(9.0, 400), one(1.0, 300), -1), (one(9.0, 300), one(1.0, 300), 1),
        (one(np.nan, 10), one(np.nan, 10), 0), (one(np.nan), one(1.0), np.nan),
    ]  # fmt: skip
    for a, b, expected in cases:
        np.testing.assert_equal(order(a, b)[0], float(expected))
        np.testing.assert_equal(order(b, a)[0], -float(expected) + 0.0)
