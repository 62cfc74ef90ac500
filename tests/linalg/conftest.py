"""Double precision, and no silent promotion, for tests that ask for it."""

import jax
import pytest


@pytest.fixture
def double_precision():
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
    ):
        yield
