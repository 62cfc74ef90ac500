"""Scikit-learn's handwritten digits: 1,797 images of 8x8, ten classes; real, and installed with it.

The split is fixed: a permutation drawn from a constant seed, so that every run of every seed
trains on the same full batch.
"""

from __future__ import annotations

import numpy as np

from cflows_ray.workloads.base import DataSet
from cflows_ray.workloads.options import DigitsOptions

_SPLIT_SEED = 0


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
