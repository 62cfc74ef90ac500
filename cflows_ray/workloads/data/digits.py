"""Scikit-learn's handwritten digits: 1,797 images of 8x8, ten classes; real, and installed with it.

The split is fixed: a permutation drawn from a constant seed, so that every run of every seed
trains on the same full batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cflows_ray.checks import require
from cflows_ray.workloads.base import DataSet, DataSource
from cflows_ray.workloads.options import check_at_least

_SPLIT_SEED = 0


@dataclass(frozen=True)
class DigitsOptions:
    """Handwritten digits: how many of the 1,797 images to train on (the rest test)."""

    num_examples: int = 1000

    def __post_init__(self) -> None:
        check_at_least(self, 10, "num_examples")
        require(self.num_examples <= 1697, "num_examples", "<= 1697", self.num_examples)


def load(options: DigitsOptions) -> DataSet:
    """Load images (n, 8, 8, 1), scaled by mean and standard deviation of the training images.

    Example:
        >>> load(DigitsOptions(num_examples=500)).x.shape
        (500, 8, 8, 1)
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(digits.target))
    x = digits.images[order, :, :, None]
    y = digits.target[order].astype(np.int32)
    n = options.num_examples
    x = (x - x[:n].mean()) / x[:n].std()
    x = x.astype(np.float32)
    return DataSet(x=x[:n], y=y[:n], x_test=x[n:], y_test=y[n:], num_outputs=10)


DIGITS = DataSource("digits", DigitsOptions, load)
