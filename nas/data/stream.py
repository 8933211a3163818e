"""Training images that stay encoded on disk until a step reads them, for data that don't fit into memory."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor

from nas.data.dataset import NUM_STATISTICS_IMAGES, ImageData, Images, Split, evenly_spaced
from nas.data.decode import DAMAGED, allocate, counted
from nas.data.splits import Cut, cut_splits
from nas.data.stream_source import EncodedData, EncodedImages, decode_part
from nas.errors import UserError
from nas.preprocess import GREY_MODES, fit_image
from nas.progress import Progress

MAXDAMAGED_IN_A_ROW = 10
"""Unreadable images in a row at which reading stops."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamedSplit:
    """Some images of a source, decoded whenever they are read. Worker processes may read it too."""

    folder: Path
    images: EncodedImages
    indices_B: np.ndarray
    """Ascending indices of the split's images in the source."""
    num_channels: int
    image_size: int

    def __len__(self) -> int:
        return len(self.indices_B)

    @cached_property
    def labels_B(self) -> Tensor:  # noqa: N802 (its axis)
        """int64 class indices of all images."""
        return torch.from_numpy(self.images.labels_B[self.indices_B])

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of every image."""
        return self.num_channels, self.image_size, self.image_size

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """All indices in random order, as random as the source can be read quickly: one epoch."""
        return self.images.order(self.indices_B, rng)

    def read(self, indices: np.ndarray) -> Images:
        """The images of these indices, in their order; the next readable one stands in for one that is damaged.

        Raises:
            UserError: too many in a row are damaged, or a file of many images is.
        """
        images_BCHW = torch.empty((len(indices), *self.shape), dtype=torch.uint8)
        pixels_BCHW = images_BCHW.numpy()
        used, damaged = [], []
        for row, index in enumerate(indices.tolist()):
            index, pixels_BCHW[row], names = self._first_readable(index)
            used.append(index)
            damaged += names
        return Images(
            images_BCHW=images_BCHW,
            labels_B=self.labels_B[torch.tensor(used, dtype=torch.int64)],
            damaged=tuple(dict.fromkeys(damaged)),
        )

    def content(self) -> Iterator[bytes | memoryview]:
        """Names and sizes of the files, which images of them, and labels; pixels would take too long."""
        for path in self.images.files():
            yield f"{path.relative_to(self.folder).as_posix()} {path.stat().st_size}\n".encode()
        yield self.indices_B.data
        yield self.labels_B.numpy().data

    def _first_readable(self, index: int) -> tuple[int, np.ndarray, list[str]]:
        """Index and pixels of the first image from `index` on that can be decoded, and names of those before it."""
        names: list[str] = []
        for offset in range(min(MAXDAMAGED_IN_A_ROW, len(self))):
            used = (index + offset) % len(self)
            place = int(self.indices_B[used])
            try:
                return used, self._decode(place), names
            except DAMAGED as error:
                names.append(self.images.name(place))
                reason = " ".join(str(error).split())
        raise UserError(
            f"{len(names)} images in a row cannot be read, from {names[0]} to {names[-1]} ({reason}); "
            "replace or remove them"
        )

    def _decode(self, place: int) -> np.ndarray:
        with Image.open(io.BytesIO(self.images.encoded(place))) as image:
            return fit_image(
                image, image_size=self.image_size, num_channels=self.num_channels, content_size=self.image_size
            )


def exceeds_memory(data: EncodedData, *, image_size: int, num_channels: int | None) -> bool:
    """Whether the decoded images take more than half of the memory that is free."""
    return 2 * len(data) * (num_channels or 3) * image_size**2 > psutil.virtual_memory().available


def stream_splits(
    data: EncodedData,
    *,
    image_size: int,
    num_channels: int | None,
    num_validation: int | None,
    seed: int,
    progress: Progress | None = None,
) -> ImageData:
    """The splits that decoding everything would give, but the training images stay on disk.

    Without `num_channels` images are grey when those are that mean and deviation are taken from.

    Raises:
        UserError: a validation or test image is damaged; those images don't fit into memory.
    """
    labels = {split: images.labels_B for split, images in data.splits.items()}
    cuts = cut_splits(labels, name=data.name, class_names=data.class_names, num_validation=num_validation, seed=seed)
    source, indices_B = cuts["train"]
    channels = num_channels or _num_channels(data.splits[source], indices_B)
    held = {split: cuts[split] for split in ("validation", "test")}
    splits = _decode_cuts(data, held, image_size=image_size, num_channels=channels, progress=progress)
    return ImageData(
        name=data.name,
        class_names=data.class_names,
        content_size=image_size,
        train=StreamedSplit(
            folder=data.folder,
            images=data.splits[source],
            indices_B=indices_B,
            num_channels=channels,
            image_size=image_size,
        ),
        validation=splits["validation"],
        test=splits["test"],
    )


def _decode_cuts(
    data: EncodedData, cuts: dict[str, Cut], *, image_size: int, num_channels: int, progress: Progress | None
) -> dict[str, Split]:
    total = sum(len(indices_B) for _, indices_B in cuts.values())
    images_BCHW = allocate(total, num_channels=num_channels, image_size=image_size)
    report = counted(progress, total, "validation and test images decoded")
    splits, start = {}, 0
    for split, (source, indices_B) in cuts.items():
        part_BCHW = images_BCHW[start : start + len(indices_B)]
        start += len(indices_B)
        decode_part(data.splits[source], indices_B, part_BCHW, progress=report)
        splits[split] = Split(
            images_BCHW=torch.from_numpy(part_BCHW),
            labels_B=torch.from_numpy(data.splits[source].labels_B[indices_B]),
        )
    return splits


def _num_channels(images: EncodedImages, indices_B: np.ndarray) -> int:
    """3 as soon as a picture has colour; only headers are decoded."""
    for index in indices_B[evenly_spaced(len(indices_B), NUM_STATISTICS_IMAGES)].tolist():
        try:
            with Image.open(io.BytesIO(images.encoded(index))) as image:
                if image.mode not in GREY_MODES:
                    return 3
        except DAMAGED:
            continue  # reading replaces and names it
    return 1
