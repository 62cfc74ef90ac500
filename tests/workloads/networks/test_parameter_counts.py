"""Parameter counts at paper scale, against counts by hand."""

from __future__ import annotations

import jax
import pytest

from cflows_ray.workloads import build_workload, full_options


def norm(channels):
    """Scale and shift."""
    return 2 * channels


def resnet_count():
    stem = 9 * 3 * 16
    stage_0 = 3 * (9 * 16 * 16 + 9 * 16 * 16 + 2 * norm(16))
    first_1 = 9 * 16 * 32 + 9 * 32 * 32 + 2 * norm(32) + 9 * 16 * 32 + norm(32)
    stage_1 = first_1 + 2 * (9 * 32 * 32 + 9 * 32 * 32 + 2 * norm(32))
    first_2 = 9 * 32 * 64 + 9 * 64 * 64 + 2 * norm(64) + 9 * 32 * 64 + norm(64)
    stage_2 = first_2 + 2 * (9 * 64 * 64 + 9 * 64 * 64 + 2 * norm(64))
    head = 2 * 2 * 64 * 4 + 4  # 8x8 pixels, pooled to 2x2
    return stem + stage_0 + stage_1 + stage_2 + head


def vit_count():
    patch = 4 * 4 * 3
    embedding = norm(patch) + patch * 64 + 64 + norm(64)
    inner = 8 * 64
    attention = norm(64) + 64 * 3 * inner + inner * 64
    hidden = norm(64) + 64 * 256 + 256 + 256 * 64 + 64
    return embedding + 4 * (attention + hidden) + norm(64) + 64 * 4 + 4


def lstm_count():
    cell = 4 * 48 * 48 + 4 * 48 * 48 + 4 * 48 + 4 * 48  # input, hidden, and two biases
    return 4 * 48 + 2 * cell + 48 * 4 + 4


def transformer_count():
    attention = 32 * 3 * 32 + 3 * 32 + 32 * 32 + 32
    hidden = 32 * 128 + 128 + 128 * 32 + 32
    return 4 * 32 + 4 * (attention + hidden + 2 * norm(32)) + 32 * 4 + 4


def mamba_count():
    dim, inner, state, rank = 64, 128, 16, 4
    into, out = dim * 2 * inner, inner * dim
    convolution = 4 * inner + inner
    select = inner * (rank + state + state)
    step = rank * inner + inner
    block = dim + into + convolution + select + step + inner * state + inner + out
    return 4 * dim + 2 * block + dim + dim * 4


COUNTS = {
    "mlp_cifar10": (3072 * 256 + 256) + (256 * 256 + 256) + (256 * 4 + 4),
    "cnn_cifar10": 27 * 32 + 9 * 32 * 64 + 8 * 8 * 64 * 128 + 128 * 4 + 4,
    "resnet_cifar10": resnet_count(),
    "vit_cifar10": vit_count(),
    "lstm_sorting": lstm_count(),
    "transformer_sorting": transformer_count(),
    "mamba_sorting": mamba_count(),
    "digits_mlp": (64 * 32 + 32) + (32 * 32 + 32) + (32 * 10 + 10),
}


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_paper_scale(name, tiny):
    """The network at paper sizes, on the fewest examples: only the images' sizes matter."""
    options = full_options(name)
    for key in ("data_dir", "num_examples", "num_test"):
        options.pop(key, None)
    small = {"num_examples": 12, "num_test": 8} if name != "digits_mlp" else {}
    workload = tiny(name, **{**options, **small})
    assert sum(leaf.size for leaf in jax.tree.leaves(workload.init(0))) == COUNTS[name]


def test_binary_targets_have_one_output(tiny):
    options = {"num_classes": 2, "binary": True, "num_test": 4}
    two = tiny("mlp_cifar10", num_classes=2, num_test=4).init(0)
    one = tiny("mlp_cifar10", **options).init(0)
    assert two["head"]["kernel"].shape == (3, 2)
    assert one["head"]["kernel"].shape == (3, 1)


def test_digits_default_is_the_documented_size():
    params = build_workload("digits_mlp").init(0)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == COUNTS["digits_mlp"]
