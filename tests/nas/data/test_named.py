"""Fashion-MNIST from the files of Debian's package; other names are downloads."""

import gzip
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from nas.data import load_data
from nas.data.named import NAMED, load_fashion_mnist
from nas.errors import UserError


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture
def mnist_folder(tmp_path: Path) -> Path:
    """Files laid out as Debian's package does."""
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    for prefix, count in (("train", 200), ("t10k", 40)):
        images_BHW = np.random.default_rng(count).integers(0, 256, (count, 28, 28))
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images_BHW)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", np.arange(count) % 10)
    return folder


def test_fashion_mnist_is_padded_at_32_and_resized_beyond(mnist_folder: Path) -> None:
    options = {"num_channels": None, "cache_dir": mnist_folder, "folder": mnist_folder}
    own, padded, resized = (load_fashion_mnist(image_size=size, **options) for size in (28, 32, 40))
    np.testing.assert_array_equal(padded.splits["train"][0][:, :, 2:-2, 2:-2], own.splits["train"][0])
    assert padded.splits["train"][0].sum() == own.splits["train"][0].sum()
    assert (own.content_size, padded.content_size, resized.content_size) == (28, 28, 40)
    assert resized.splits["test"][0].shape == (40, 1, 40, 40)
    assert own.class_names[0] == "T-shirt/top"


def test_grey_images_become_three_equal_channels_on_request(mnist_folder: Path) -> None:
    data = load_fashion_mnist(image_size=28, num_channels=3, cache_dir=mnist_folder, folder=mnist_folder)
    images_BCHW = data.splits["train"][0]
    assert images_BCHW.shape == (200, 3, 28, 28)
    assert (images_BCHW == images_BCHW[:, :1]).all()


@pytest.mark.parametrize("damage", [b"", b"not gzip", gzip.compress(b"\0\0\x08\x03short")])
def test_damaged_fashion_mnist_file_is_named(mnist_folder: Path, damage: bytes) -> None:
    path = mnist_folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage)
    with pytest.raises(UserError, match="train-images-idx3-ubyte.gz"):
        load_fashion_mnist(image_size=28, num_channels=None, cache_dir=mnist_folder, folder=mnist_folder)


def test_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr("nas.data.named.FashionMNIST.download", offline)
    with pytest.raises(UserError, match="cannot download fashion-mnist: Error downloading.*dataset-fashion-mnist"):
        load_fashion_mnist(image_size=28, num_channels=None, cache_dir=tmp_path, folder=tmp_path / "none")


def test_fashion_mnist_is_found_by_name(mnist_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NAMED, "fashion-mnist", partial(load_fashion_mnist, folder=mnist_folder))
    data = load_data("fashion-mnist", image_size=32)
    assert [len(split) for split in data.splits.values()] == [180, 20, 40]
    assert (data.name, data.num_channels, data.num_classes, data.image_size) == ("fashion-mnist", 1, 10, 32)
