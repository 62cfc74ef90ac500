"""CIFAR-10 from its official binary files.

A file is a sequence of records of 3,073 bytes: a label, then 32x32 red, green and blue values. The
first examples of the first classes are taken, in the order of the files `data_batch_1.bin` ...
`data_batch_5.bin` (those that exist) and, for the test set, `test_batch.bin`. Nothing is unpickled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cflows_ray.checks import require
from cflows_ray.workloads.base import DataSet, DataSource
from cflows_ray.workloads.data.cifar10_download import TEST_FILE, TRAIN_FILES, find_folder
from cflows_ray.workloads.options import check_at_least, check_booleans

RECORD_BYTES = 1 + 3 * 32 * 32

# Mean and standard deviation of the training pixels, a channel (red, green, blue), in [0, 1].
CHANNEL_MEAN = np.array([0.4914, 0.4822, 0.4465])
CHANNEL_STD = np.array([0.2470, 0.2435, 0.2616])


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
        check_at_least(self, 2, "num_classes", "num_examples")
        check_at_least(self, 0, "num_test")
        check_booleans(self, "binary")
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


def read_records(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read images (n, 32, 32, 3) uint8 and labels (n,) of one binary file.

    Raises `ValueError` for a file that is not a whole number of records with labels 0 .. 9.
    """
    raw = np.fromfile(path, dtype=np.uint8)
    if raw.size == 0 or raw.size % RECORD_BYTES:
        raise ValueError(
            f"{path} has {raw.size} bytes, not a multiple of {RECORD_BYTES}: "
            "it is incomplete or not a binary file of CIFAR-10"
        )
    records = raw.reshape(-1, RECORD_BYTES)
    labels = records[:, 0]
    if labels.max() > 9:
        raise ValueError(f"{path} has label {labels.max()}: it is not a binary file of CIFAR-10")
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, labels


def first_of_each(labels: np.ndarray, num_classes: int, count: int, what: str) -> np.ndarray:
    """Return the indices, ascending, of the first `count` examples of each of the first classes.

    Raises `ValueError` where a class has fewer.
    """
    chosen = []
    for label in range(num_classes):
        found = np.flatnonzero(labels == label)
        if len(found) < count:
            raise ValueError(
                f"{what} asks for {count} examples of each class, but the files at hand have "
                f"{len(found)} of class {label}"
            )
        chosen.append(found[:count])
    return np.sort(np.concatenate(chosen))


def prepare(images: np.ndarray, downsample: int) -> np.ndarray:
    """Standardise the channels of uint8 images and average squares of pixels; float32."""
    n, side = len(images), 32 // downsample
    pixels = images / 255.0
    pixels = pixels.reshape(n, side, downsample, side, downsample, 3).mean(axis=(2, 4))
    return ((pixels - CHANNEL_MEAN) / CHANNEL_STD).astype(np.float32)


def load(options: CIFAR10Options) -> DataSet:
    """Load training and test sets: images (n, side, side, 3), int32 labels or targets ±1 (n, 1)."""
    folder = find_folder(options.data_dir)
    train = [read_records(folder / name) for name in TRAIN_FILES if (folder / name).is_file()]
    images, labels = (np.concatenate(arrays) for arrays in zip(*train, strict=True))
    test_images, test_labels = read_records(folder / TEST_FILE)

    c = options.num_classes
    index = first_of_each(labels, c, options.num_examples // c, "num_examples")
    if options.num_test:
        test_index = first_of_each(test_labels, c, options.num_test // c, "num_test")
    else:
        test_index = np.flatnonzero(test_labels < c)

    def targets(chosen: np.ndarray) -> np.ndarray:
        if options.binary:
            return (2.0 * chosen[:, None] - 1.0).astype(np.float32)
        return chosen.astype(np.int32)

    return DataSet(
        x=prepare(images[index], options.downsample),
        y=targets(labels[index]),
        x_test=prepare(test_images[test_index], options.downsample),
        y_test=targets(test_labels[test_index]),
        num_outputs=1 if options.binary else c,
    )


def fetch(options: CIFAR10Options) -> None:
    """Find the folder, or download it once; raises `DataUnavailable`."""
    find_folder(options.data_dir)


def files(options: CIFAR10Options) -> list[Path]:
    """Return the files that `load` reads."""
    folder = find_folder(options.data_dir)
    return [folder / name for name in (*TRAIN_FILES, TEST_FILE) if (folder / name).is_file()]


def outline(options: CIFAR10Options) -> DataSet:
    """Return the shapes of what `load` returns, without examples."""
    side, c = 32 // options.downsample, 1 if options.binary else options.num_classes
    x = np.empty((0, side, side, 3), np.float32)
    y = np.empty((0, 1), np.float32) if options.binary else np.empty(0, np.int32)
    return DataSet(x=x, y=y, x_test=None, y_test=None, num_outputs=c)


CIFAR10 = DataSource(
    "cifar10", CIFAR10Options, load, fetch=fetch, files=files, paths=("data_dir",), outline=outline
)
