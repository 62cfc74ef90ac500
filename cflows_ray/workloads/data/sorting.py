"""Sorting short sequences by next-token prediction, after the demo of Karpathy's minGPT.

An example is the unsorted sequence a followed by the sorted one s. The input is that string without
its last token; the network predicts the token after each of the last `length` positions:

    input   a_1 .. a_m s_1 .. s_{m-1}     (2m - 1 tokens)
    target  s_1 .. s_m                    (m tokens, after positions m .. 2m - 1)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cflows_ray.workloads.base import DataSet, DataSource
from cflows_ray.workloads.options import check_at_least


@dataclass(frozen=True)
class SortingOptions:
    """Sorting: sequences of `length` tokens out of `vocab_size`, drawn from a fixed seed."""

    num_examples: int = 1000
    num_test: int = 1000
    length: int = 8
    vocab_size: int = 4
    data_seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(self, 1, "num_examples", "num_test")
        check_at_least(self, 2, "length", "vocab_size")
        check_at_least(self, 0, "data_seed")


def load(options: SortingOptions) -> DataSet:
    """Draw training and test sequences from `data_seed`.

    Example:
        >>> data = load(SortingOptions(num_examples=5, length=3))
        >>> data.x.shape, data.y.shape
        ((5, 5), (5, 3))
    """
    n = options.num_examples
    rng = np.random.default_rng(options.data_seed)
    unsorted = rng.integers(0, options.vocab_size, size=(n + options.num_test, options.length))
    target = np.sort(unsorted, axis=1).astype(np.int32)
    x = np.concatenate([unsorted, target[:, :-1]], axis=1).astype(np.int32)
    return DataSet(
        x=x[:n],
        y=target[:n],
        x_test=x[n:],
        y_test=target[n:],
        num_outputs=options.vocab_size,
        vocab_size=options.vocab_size,
    )


SORTING = DataSource("sorting", SortingOptions, load)
