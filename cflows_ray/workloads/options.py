"""The options of every data set and network: their names, defaults and allowed values.

Everything here is plain Python, so that a configuration can be checked on a driver that loads
neither JAX nor any data. A workload's options are one flat mapping: those of its data set, those
of its network, and `CommonOptions`, with no name used twice.

Every class raises `ConfigError`, a `ValueError`, naming the field, the value and what is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from cflows_ray.checks import ConfigError, boolean, integer, number, one_of, require

ACTIVATIONS = ("gelu", "tanh")


def _at_least(options: object, minimum: int, *names: str) -> None:
    """Check that the named fields are integers of at least `minimum`."""
    for name in names:
        integer(name, getattr(options, name), minimum)


def _is_bool(options: object, *names: str) -> None:
    """Check that the named fields are booleans."""
    for name in names:
        boolean(name, getattr(options, name))


def _is_number(options: object, *names: str) -> None:
    """Check that the named fields are finite numbers."""
    for name in names:
        number(name, getattr(options, name), "a finite number", -math.inf)


@dataclass(frozen=True)
class CommonOptions:
    """Options of every workload that trains a network.

    Attributes:
        ghost_batch: examples in a slice of the full batch; derivatives accumulate over slices.
            0 takes the whole batch at once.
        num_probe: test inputs (training inputs where there is no test set) on which the outputs
            of two processes are compared.
    """

    ghost_batch: int = 0
    num_probe: int = 64

    def __post_init__(self) -> None:
        _at_least(self, 0, "ghost_batch")
        _at_least(self, 1, "num_probe")


@dataclass(frozen=True)
class SaddleOptions:
    """L(x, y) = ½ y x² - c y, started at (x0, y0) plus a small offset drawn from the seed."""

    c: float = 0.01
    x0: float = 0.15
    y0: float = 9.8

    def __post_init__(self) -> None:
        _is_number(self, "c", "x0", "y0")
        require(self.c >= 0, "c", ">= 0", self.c)
        require(self.y0 > 0, "y0", "> 0", self.y0)


@dataclass(frozen=True)
class DigitsOptions:
    """Handwritten digits: how many of the 1,797 images to train on (the rest test)."""

    num_examples: int = 1000

    def __post_init__(self) -> None:
        _at_least(self, 10, "num_examples")
        require(self.num_examples <= 1697, "num_examples", "<= 1697", self.num_examples)


@dataclass(frozen=True)
class CIFAR10Options:
    """CIFAR-10: which examples, and where the files are.

    Attributes:
        num_examples: training examples n; the first n / num_classes of each class are taken.
        num_classes: the first classes, in the order of the data set.
        binary: targets ±1 (class 0 is -1) and one output; needs num_classes = 2.
        num_test: test examples at most, balanced in the same way; 0 takes all of the classes.
        downsample: side of the square of pixels averaged into one; 1 keeps 32x32 images.
        data_dir: folder of the official binary files. Empty takes the environment variable
            CFLOWS_CIFAR10_DIR, and without it a cache filled by download.
    """

    num_examples: int = 1000
    num_classes: int = 4
    binary: bool = False
    num_test: int = 0
    downsample: int = 1
    data_dir: str = ""

    def __post_init__(self) -> None:
        _at_least(self, 2, "num_classes", "num_examples")
        _at_least(self, 0, "num_test")
        _is_bool(self, "binary")
        require(self.num_classes <= 10, "num_classes", "<= 10", self.num_classes)
        require(
            not self.binary or self.num_classes == 2, "num_classes", "2 if binary", self.num_classes
        )
        require(self.downsample in (1, 2, 4, 8), "downsample", "1, 2, 4 or 8", self.downsample)
        require(isinstance(self.data_dir, str), "data_dir", "a path", self.data_dir)
        for name, there in (("num_examples", 5000), ("num_test", 1000)):
            value = getattr(self, name)
            require(value <= there * self.num_classes, name, f"<= {there} a class", value)
            even = value % self.num_classes == 0
            require(even, name, f"a multiple of num_classes = {self.num_classes}", value)

    @property
    def image_size(self) -> int:
        """Side of the images, in pixels."""
        return 32 // self.downsample


@dataclass(frozen=True)
class SortingOptions:
    """Sorting: sequences of `length` tokens out of `vocab_size`, drawn from a fixed seed."""

    num_examples: int = 1000
    num_test: int = 1000
    length: int = 8
    vocab_size: int = 4
    data_seed: int = 0

    def __post_init__(self) -> None:
        _at_least(self, 1, "num_examples", "num_test")
        _at_least(self, 2, "length", "vocab_size")
        _at_least(self, 0, "data_seed")


@dataclass(frozen=True)
class NpzOptions:
    """Your own data: an `.npz` file with arrays x, y and, if wanted, x_test, y_test.

    Attributes:
        path: the file.
        network: which network to train on it.
    """

    path: str = ""
    network: str = "mlp"

    def __post_init__(self) -> None:
        ok = isinstance(self.path, str) and self.path.endswith(".npz")
        require(ok, "path", "the path of an .npz file", self.path)
        one_of("network", self.network, tuple(NETWORK_OPTIONS))


@dataclass(frozen=True)
class MLPOptions:
    """Multilayer perceptron: `depth` hidden layers of `width`."""

    width: int = 256
    depth: int = 2
    activation: str = "gelu"
    zero_head: bool = False

    def __post_init__(self) -> None:
        _at_least(self, 1, "width", "depth")
        one_of("activation", self.activation, ACTIVATIONS)
        _is_bool(self, "zero_head")


@dataclass(frozen=True)
class CNNOptions:
    """Convolutions of `width` and 2 `width` channels, then a hidden layer of 4 `width` units."""

    width: int = 32
    activation: str = "gelu"

    def __post_init__(self) -> None:
        _at_least(self, 1, "width")
        one_of("activation", self.activation, ACTIVATIONS)

    def check_image(self, size: int) -> None:
        """Check that images of a side fit."""
        require(size >= 4, "image size", ">= 4 for two poolings", size)


@dataclass(frozen=True)
class ResNetOptions:
    """Residual network: blocks in each stage, channels of the first stage, groups of its norms."""

    stages: tuple[int, ...] = (3, 3, 3)
    width: int = 16
    groups: int = 16
    activation: str = "gelu"

    def __post_init__(self) -> None:
        _at_least(self, 1, "width", "groups")
        ok = isinstance(self.stages, tuple) and len(self.stages) > 0
        ok = ok and all(isinstance(n, int) and n >= 1 for n in self.stages)
        require(ok, "stages", "a list of integers >= 1", self.stages)
        divides = self.width % self.groups == 0
        require(divides, "groups", f"a divisor of width = {self.width}", self.groups)
        one_of("activation", self.activation, ACTIVATIONS)

    def check_image(self, size: int) -> None:
        """Check that images of a side fit."""
        least = 2 ** (len(self.stages) - 1)
        require(size >= least, "image size", f">= {least} for stages {self.stages}", size)


@dataclass(frozen=True)
class ViTOptions:
    """Vision transformer: side of a patch, width, layers, heads and their width, hidden width."""

    patch: int = 4
    dim: int = 64
    depth: int = 4
    heads: int = 8
    head_dim: int = 64
    mlp_dim: int = 256

    def __post_init__(self) -> None:
        _at_least(self, 1, "patch", "depth", "heads", "head_dim", "mlp_dim")
        _at_least(self, 8, "dim")
        require(self.dim % 4 == 0, "dim", "a multiple of 4 for sin-cos positions", self.dim)

    def check_image(self, size: int) -> None:
        """Check that images of a side fit."""
        require(size % self.patch == 0, "patch", f"a divisor of the image size {size}", self.patch)


@dataclass(frozen=True)
class LSTMOptions:
    """Stacked LSTM: layers, width of the embedding, width of the hidden state."""

    layers: int = 2
    embedding: int = 48
    hidden: int = 48

    def __post_init__(self) -> None:
        _at_least(self, 1, "layers", "embedding", "hidden")


@dataclass(frozen=True)
class TransformerOptions:
    """Causal transformer: layers, width, heads; the hidden layers are `mlp_ratio` as wide."""

    layers: int = 4
    dim: int = 32
    heads: int = 4
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        _at_least(self, 1, "layers", "heads", "mlp_ratio")
        _at_least(self, 2, "dim")
        require(self.dim % 2 == 0, "dim", "even for sinusoidal positions", self.dim)
        require(self.dim % self.heads == 0, "heads", f"a divisor of dim = {self.dim}", self.heads)


@dataclass(frozen=True)
class MambaOptions:
    """Selective state-space stack: layers, width, state size, expansion, convolution length."""

    layers: int = 2
    dim: int = 64
    state: int = 16
    expand: int = 2
    conv: int = 4
    head_scale: float = 0.1

    def __post_init__(self) -> None:
        _at_least(self, 1, "layers", "dim", "state", "expand", "conv")
        _is_number(self, "head_scale")


NETWORK_OPTIONS: dict[str, type] = {
    "mlp": MLPOptions,
    "cnn": CNNOptions,
    "resnet": ResNetOptions,
    "vit": ViTOptions,
    "lstm": LSTMOptions,
    "transformer": TransformerOptions,
    "mamba": MambaOptions,
}


def resolve(classes: tuple[type, ...], options: Mapping[str, Any], workload: str) -> list[Any]:
    """Split a flat mapping of options over option classes; instances in the same order.

    Lists become tuples, so that options read from JSON are as good as those written in Python.

    Raises `ValueError` for an option that no class has, and for values that a class rejects.

    Example:
        >>> resolve((MLPOptions, CommonOptions), {"width": 8}, "mlp")[0].width
        8
    """
    known = {f.name for cls in classes for f in fields(cls)}
    for name in options:
        if name not in known:
            raise ConfigError(
                f"option {name!r} is unknown to workload {workload!r}; it takes {sorted(known)}"
            )
    result = []
    for cls in classes:
        names = {f.name for f in fields(cls)}
        values = {
            k: tuple(v) if isinstance(v, list) else v for k, v in options.items() if k in names
        }
        result.append(cls(**values))
    return result
