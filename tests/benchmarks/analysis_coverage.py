"""How often the 95% intervals cover the truth, by the number of seeds.

    python tests/benchmarks/analysis_coverage.py [--sweeps 500]

Prints one line per number of seeds: the share of simulated sweeps whose interval of the mean, of
the median ratio and of the median horizon covers the true value. Errors are log-normal with the
given sd of the logarithm; horizons are exponential and censored at random times.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from analysis.infer import mean_interval, median_horizon, median_interval


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=500)
    sweeps = parser.parse_args().sweeps
    print("seeds  mean (sd 0.2)  mean (sd 0.5)  method  median ratio  median horizon")
    for n in (2, 3, 5, 8, 12, 20, 30):
        rng = np.random.default_rng(n)
        hits = np.zeros(4)
        method = ""
        for i in range(sweeps):
            for j, sd in enumerate((0.2, 0.5)):
                low, high, method = mean_interval(np.exp(sd * rng.normal(size=n)), seed=i)
                hits[j] += max(low, 0.0) <= np.exp(sd**2 / 2) <= high
            found = median_interval(rng.normal(size=n), seed=i)
            hits[2] += found.low <= 0 <= found.high
            time, end = rng.exponential(100.0, size=n), rng.uniform(50, 400, size=n)
            limits = median_horizon(np.minimum(time, end), time <= end)
            hits[3] += limits.low <= 100 * np.log(2) <= limits.high
        share = [f"{100 * h / sweeps:.1f}%" for h in hits]
        if n < 6:
            share[2] = "none"
        print(
            f"{n:5d}  {share[0]:>13}  {share[1]:>13}  {method:>6}  {share[2]:>12}  {share[3]:>14}"
        )


if __name__ == "__main__":
    main()
