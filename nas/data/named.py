"""Published data sets known by name: taken from where the system has them, otherwise downloaded by torchvision."""

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST

from nas.data.decode import Arrays, fit_arrays
from nas.data.splits import DecodedData
from nas.errors import UserError

FASHION_MNIST_DIR = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""

FASHION_MNIST_SIZE = 28
MAX_PADDED_SIZE = 32
"""Up to here 28-pixel images are padded, as is usual; beyond they are resized."""

_FASHION_MNIST_FILES = {"train": "train", "test": "t10k"}


def load_fashion_mnist(
    *, image_size: int, num_channels: int | None, cache_dir: Path, folder: Path = FASHION_MNIST_DIR
) -> DecodedData:
    """Fashion-MNIST: 60,000 and 10,000 grey images of 10 kinds of clothes, 28x28 (arXiv:1708.07747)."""
    if all(path.exists() for paths in _idx_paths(folder).values() for path in paths):
        splits = {split: _read_idx_pair(*paths) for split, paths in _idx_paths(folder).items()}
    else:
        splits = {}
        for split in ("train", "test"):
            hint = f"or install the Debian package dataset-fashion-mnist, or put its four .gz files into {folder}"
            data = _download(FashionMNIST, cache_dir, split, name="fashion-mnist", hint=hint)
            splits[split] = (data.data.numpy()[:, None], data.targets.numpy())
    content_size = FASHION_MNIST_SIZE if FASHION_MNIST_SIZE < image_size <= MAX_PADDED_SIZE else image_size
    names = tuple(FashionMNIST.classes)
    return _fitted("fashion-mnist", splits, names, image_size, num_channels, content_size)


def load_cifar10(*, image_size: int, num_channels: int | None, cache_dir: Path) -> DecodedData:
    """CIFAR-10: 50,000 and 10,000 colour images of 10 classes, 32x32 (Krizhevsky 2009)."""
    return _load_cifar("cifar10", CIFAR10, image_size, num_channels, cache_dir)


def load_cifar100(*, image_size: int, num_channels: int | None, cache_dir: Path) -> DecodedData:
    """CIFAR-100: 50,000 and 10,000 colour images of 100 classes, 32x32 (Krizhevsky 2009)."""
    return _load_cifar("cifar100", CIFAR100, image_size, num_channels, cache_dir)


NAMED: dict[str, Callable[..., DecodedData]] = {
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "fashion-mnist": load_fashion_mnist,
}


def _load_cifar(
    name: str, dataset: type[CIFAR10], image_size: int, num_channels: int | None, cache_dir: Path
) -> DecodedData:
    splits, names = {}, ()
    for split in ("train", "test"):
        data = _download(dataset, cache_dir, split, name=name, hint="or give a folder that holds the data")
        splits[split] = (np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)), np.asarray(data.targets))
        names = tuple(data.classes)
    return _fitted(name, splits, names, image_size, num_channels, image_size)


def _fitted(
    name: str,
    splits: dict[str, Arrays],
    class_names: tuple[str, ...],
    image_size: int,
    num_channels: int | None,
    content_size: int,
) -> DecodedData:
    fitted = {
        split: fit_arrays(arrays, image_size=image_size, num_channels=num_channels, content_size=content_size)
        for split, arrays in splits.items()
    }
    return DecodedData(name=name, splits=fitted, class_names=class_names, content_size=content_size)


def _download(dataset: Callable[..., Any], cache_dir: Path, split: str, *, name: str, hint: str) -> Any:
    """A torchvision data set; network, disk and checksum errors become the user's."""
    try:
        return dataset(str(cache_dir), train=split == "train", download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"cannot download {name}: {reason}; connect to the network, {hint}") from error


def _idx_paths(folder: Path) -> dict[str, tuple[Path, Path]]:
    return {
        split: (folder / f"{prefix}-images-idx3-ubyte.gz", folder / f"{prefix}-labels-idx1-ubyte.gz")
        for split, prefix in _FASHION_MNIST_FILES.items()
    }


def _read_idx_pair(images_path: Path, labels_path: Path) -> Arrays:
    images_BHW, labels_B = _read_idx(images_path, num_axes=3), _read_idx(labels_path, num_axes=1)
    if len(images_BHW) != len(labels_B):
        raise UserError(
            f"{images_path} has {len(images_BHW)} images, {labels_path.name} {len(labels_B)} labels; "
            "install the data set again"
        )
    return images_BHW[:, None], labels_B


def _read_idx(path: Path, *, num_axes: int) -> np.ndarray:
    """Unsigned bytes of an IDX file: two zeros, type 8, number of axes, each axis as big-endian int32, data."""
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}; install the data set again") from error
    header = 4 + 4 * num_axes
    shape = tuple(np.frombuffer(data[4:header], dtype=">i4").tolist()) if len(data) >= header else ()
    if data[:4] != bytes([0, 0, 8, num_axes]) or len(data) - header != int(np.prod(shape)):
        raise UserError(f"{path} is not an IDX file of {num_axes} axes; install the data set again")
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)
