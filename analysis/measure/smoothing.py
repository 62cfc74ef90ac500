"""The optimizer's time average: a Gaussian kernel that never looks past its data.

At the edge of stability the optimizer's loss, sharpness and gradient oscillate from step to step;
central flows predict their local time average. That average is taken here, with one rule: where the
kernel's window reaches past the recorded steps, or over a step at which the quantity is null, there
is no average (NaN). Nothing is padded, mirrored or renormalised.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import convolve1d

DEFAULT_BANDWIDTH = 20.0  # steps; docs/analysis.md says how it was chosen
TRUNCATE = 4.0  # half-width of the window in bandwidths; leaves out 6e-5 of the kernel's mass


def half_window(bandwidth: float, spacing: float = 1.0) -> int:
    """Count the records on each side of the window of a kernel with this bandwidth (in steps).

    Raises `ValueError` unless the bandwidth is a positive number.

    >>> half_window(10.0), half_window(10.0, spacing=5)
    (40, 8)
    """
    if not (np.isfinite(bandwidth) and bandwidth > 0):
        raise ValueError(f"bandwidth must be a positive number of steps, got {bandwidth}")
    return int(np.ceil(TRUNCATE * bandwidth / spacing))


def window_records(step: NDArray, bandwidth: float) -> int:
    """Count the records in the window of one time average: averages so far apart share none.

    Where 4 bandwidths are no whole number of spacings, the window reaches a little beyond them.

    >>> window_records(np.arange(500), 20.0), window_records(np.arange(0, 500, 7), 20.0)
    (161, 25)
    """
    spacing = float(step[1] - step[0]) if len(step) > 1 else 1.0
    return 2 * half_window(bandwidth, spacing) + 1


def time_average(
    step: ArrayLike, values: ArrayLike, bandwidth: float = DEFAULT_BANDWIDTH
) -> NDArray[np.float64]:
    """Gaussian time average of a quantity recorded along a trajectory.

        x̄_t = Σ_s K(s - t) x_s / Σ_s K(s - t),   K(r) = exp(-r² / 2b²) for |r| <= 4b,

    with 4b rounded up to a whole number of spacings.

    Args:
        step: recorded steps (n,), increasing; the kernel uses their first spacing, and steps from
            the first irregular one on (such as an odd last record) get no average.
        values: (n,) or (n, k); NaN where undefined.
        bandwidth: b, in optimizer steps.

    Returns:
        Same shape as `values`, in its unit. NaN within 4b of either end and wherever the window
        touches a NaN; all NaN if the trajectory is shorter than the window.

    >>> zigzag = np.array([1.0, 3.0] * 20)
    >>> average = time_average(np.arange(40), zigzag, bandwidth=2.0)
    >>> average[7], round(float(average[8]), 3), average[32]
    (np.float64(nan), 2.0, np.float64(nan))
    """
    step = np.asarray(step)
    values = np.asarray(values, dtype=np.float64)
    result = np.full(values.shape, np.nan)
    if len(step) < 2:
        half_window(bandwidth)  # reports a bad bandwidth here too
        return result
    spacing = step[1] - step[0]
    irregular = np.flatnonzero(np.diff(step) != spacing)
    regular = int(irregular[0]) + 1 if len(irregular) else len(step)
    half = half_window(bandwidth, float(spacing))
    if regular < 2 * half + 1 or values.size == 0:
        return result
    offsets = np.arange(-half, half + 1) * spacing
    kernel = np.exp(-0.5 * (offsets / bandwidth) ** 2)
    known = np.isfinite(values[:regular])
    filled = np.where(known, values[:regular], 0.0)
    averaged = convolve1d(filled, kernel / kernel.sum(), axis=0, mode="constant")
    if not known.all():
        # Counted by the window, not by the kernel, so that rounding cannot hide a missing value.
        averaged[_window_count(~known, half) > 0] = np.nan
    inside = slice(half, regular - half)
    result[inside] = averaged[inside]
    return result


def _window_count(flags: NDArray[np.bool_], half: int) -> NDArray[np.int64]:
    """Count true entries within `half` rows of each row (rows past the ends count as false)."""
    n = len(flags)
    total = np.concatenate([np.zeros((1, *flags.shape[1:]), np.int64), np.cumsum(flags, axis=0)])
    rows = np.arange(n)
    return total[np.minimum(rows + half + 1, n)] - total[np.maximum(rows - half, 0)]
