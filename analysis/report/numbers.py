"""Numbers as text: significant figures, intervals in small print, steps, p-values, shares."""

from __future__ import annotations

import math

import numpy as np

from analysis.report import page

DASH = "-"


def significant(value: float, digits: int = 2) -> str:
    """Format a number with this many significant figures, never more exact than it looks.

    >>> [significant(v) for v in (0.01234, 3.21, 456.0, 0.0, 2.5e-7, float("nan"))]
    ['0.012', '3.2', '456', '0', '2.5e-07', '-']
    """
    if math.isnan(value):
        return DASH
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value == 0:
        return "0"
    rounded = f"{value:.{digits - 1}e}"
    magnitude = int(rounded.partition("e")[2])
    if magnitude < -4 or magnitude > 6:
        return rounded
    return f"{value:.{max(0, digits - 1 - magnitude)}f}"


def with_limits(value: float, low: float, high: float) -> str:
    """Format a value with its interval in small print, if it has one.

    >>> with_limits(0.5, 0.4, 0.61), with_limits(0.5, float("nan"), float("nan"))
    ('0.50<small>[0.40, 0.61]</small>', '0.50')
    """
    if not np.isfinite(low) and not np.isfinite(high):
        return significant(value)
    return page.with_small(significant(value), f"[{significant(low)}, {significant(high)}]")


def steps_text(value: float, longest: float) -> str:
    """Format a number of steps; infinite is beyond the longest run.

    >>> steps_text(31.0, 200.0), steps_text(math.inf, 200.0), steps_text(math.nan, 200.0)
    ('31', '>200', '-')
    """
    if math.isnan(value):
        return DASH
    return f">{longest:.0f}" if math.isinf(value) else f"{value:.0f}"


def step_limits(median: float, low: float, high: float, longest: float) -> str:
    """Format a number of steps with its interval; infinite is beyond the longest run."""
    if np.isnan(low) or np.isinf(low):
        return steps_text(median, longest)
    limits = f"[{steps_text(low, longest)}, {steps_text(high, longest)}]"
    return page.with_small(steps_text(median, longest), limits)


def p_text(value: float) -> str:
    """Format a p-value; below 0.0001 as a power of ten."""
    return significant(value) if not value < 1e-4 else f"{value:.0e}"


def percent(value: float) -> str:
    """Format a share in per cent."""
    return "-" if np.isnan(value) else f"{100 * value:.0f}%"
