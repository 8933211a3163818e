"""Encoded images in files: what every layout on disk offers, and how all of them are decoded into memory."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from nas.data.cache import cache_key, read_cache, write_cache
from nas.data.decode import Arrays, allocate, counted, decode_images
from nas.data.splits import DecodedData, check_has_train, check_labels, split_of_name
from nas.errors import UserError
from nas.progress import Progress

_BLOCK = 2048
"""Images whose files are in memory at once while they are decoded."""


class EncodedImages(Protocol):
    """The images of one split as they are on disk. No file stays open, so that processes may be forked."""

    @property
    def labels_B(self) -> np.ndarray:  # noqa: N802 (its axis)
        """int64 class indices of all images."""

    def files(self) -> Iterable[Path]:
        """The files that hold the images, in a fixed order."""

    def name(self, index: int) -> str:
        """Where an image is, for messages."""

    def encoded(self, index: int) -> bytes:
        """The image's file.

        Raises:
            OSError, ValueError: this image cannot be read.
            UserError: a file of many images cannot be read.
        """

    def order(self, indices_B: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A random permutation of the positions in `indices_B` that can be read without needless seeking."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedData:
    """What a layout on disk returns: the images of each split it has, and labels that are classes."""

    folder: Path
    splits: Mapping[str, EncodedImages]
    """`train`, and where the source has them `validation` and `test`."""
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        for split, images in self.splits.items():
            check_labels(
                images.labels_B, split, name=self.name, num_classes=len(self.class_names), place_of=images.name
            )

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def __len__(self) -> int:
        return sum(len(images.labels_B) for images in self.splits.values())


def find_split_files(folder: Path, suffix: str) -> dict[str, list[Path]]:
    """Files below `folder` by split, which is in the file's name or in the name of a folder around it.

    Raises:
        UserError: none is of the training split.
    """
    groups: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob(f"*{suffix}")):
        parts = [path.stem, *reversed(path.relative_to(folder).parent.parts)]
        words = (word for part in parts for word in re.split(r"[^A-Za-z]+", part))
        split = next((split for split in map(split_of_name, words) if split), None)
        if split:
            groups.setdefault(split, []).append(path)
    check_has_train(groups, folder)
    return {split: groups[split] for split in ("train", "validation", "test") if split in groups}


def decode_all(
    data: EncodedData, *, image_size: int, num_channels: int | None, cache_dir: Path, progress: Progress | None = None
) -> DecodedData:
    """Decode every image into memory, or take them from an earlier call's file in `cache_dir`.

    Raises:
        UserError: an image is damaged; the images don't fit into memory.
    """
    options = {
        "classes": data.class_names,
        "splits": {split: len(images.labels_B) for split, images in data.splits.items()},
        "image_size": image_size,
        "num_channels": num_channels,
    }
    files = [path for images in data.splits.values() for path in images.files()]
    key = cache_key(files, folder=data.folder, options=options)
    splits = read_cache(cache_dir, key)
    if splits is None:
        splits = _decode_splits(data, image_size=image_size, num_channels=num_channels, progress=progress)
        write_cache(cache_dir, key, splits)
    return DecodedData(name=data.name, splits=splits, class_names=data.class_names, content_size=image_size)


def decode_part(
    images: EncodedImages, indices_B: np.ndarray, out_BCHW: np.ndarray, *, progress: Callable[[int], None]
) -> bool:
    """Decode the images of these indices into `out_BCHW`; return whether all of them are grey.

    Raises:
        UserError: an image is damaged.
    """
    all_grey = True
    for start in range(0, len(indices_B), _BLOCK):
        block = indices_B[start : start + _BLOCK].tolist()
        all_grey &= decode_images(
            [_encoded(images, index) for index in block],
            name_of=lambda position, block=block: f"in {images.name(block[position])}",  # type: ignore[misc]
            out_BCHW=out_BCHW[start : start + _BLOCK],
            content_size=out_BCHW.shape[-1],
            progress=progress,
        )
    return all_grey


def _encoded(images: EncodedImages, index: int) -> bytes:
    try:
        return images.encoded(index)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the image in {images.name(index)}: {error}; replace or remove it") from error


def _decode_splits(
    data: EncodedData, *, image_size: int, num_channels: int | None, progress: Progress | None
) -> dict[str, Arrays]:
    images_BCHW = allocate(len(data), num_channels=num_channels, image_size=image_size)
    report = counted(progress, len(data), "images decoded")
    parts, all_grey, start = {}, True, 0
    for split, images in data.splits.items():
        parts[split] = images_BCHW[start : start + len(images.labels_B)]
        start += len(images.labels_B)
        all_grey &= decode_part(images, np.arange(len(images.labels_B)), parts[split], progress=report)
    used = slice(0, 1 if all_grey and num_channels is None else None)
    return {split: (np.ascontiguousarray(part[:, used]), data.splits[split].labels_B) for split, part in parts.items()}
