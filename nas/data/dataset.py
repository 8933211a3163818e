"""What every stage after loading sees: three splits of equally sized images with labels.

Axes: B images, C channels (1 grey, 3 RGB), H height, W width.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

NUM_STATISTICS_IMAGES = 4096
"""Images from which a split on disk takes mean and deviation; one in memory takes all."""
_STATISTICS_CHUNK = 512
"""Images whose pixels are counted at once, to bound memory."""
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Images:
    """Some images of a split."""

    images_BCHW: Tensor
    """uint8."""
    labels_B: Tensor
    """int64 class indices."""
    damaged: tuple[str, ...] = ()
    """Names of those that couldn't be decoded; others, with their own labels, stand in for them."""


class TrainImages(Protocol):
    """Training images, in memory (`Split`) or on disk (`nas.data.stream.StreamedSplit`)."""

    @property
    def labels_B(self) -> Tensor:  # noqa: N802 (its axis)
        """int64 class indices of all images."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of every image."""

    def __len__(self) -> int: ...

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """All indices in random order: one epoch."""

    def read(self, indices: np.ndarray) -> Images:
        """The images of these indices, in their order."""

    def content(self) -> Iterator[bytes | memoryview]:
        """What a fingerprint is made of."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images and their labels, in one order."""

    images_BCHW: Tensor
    """uint8 pixels, contiguous."""
    labels_B: Tensor
    """int64 class indices."""

    def __post_init__(self) -> None:
        shape = tuple(self.images_BCHW.shape)
        if self.images_BCHW.dtype != torch.uint8 or len(shape) != 4:
            raise ValueError(f"images are {self.images_BCHW.dtype} {shape}; uint8 [B, C, H, W] is expected")
        if self.labels_B.dtype != torch.int64 or tuple(self.labels_B.shape) != shape[:1]:
            raise ValueError(
                f"labels are {self.labels_B.dtype} {tuple(self.labels_B.shape)} for {shape[0]} images; "
                "int64 [B] is expected"
            )

    def __len__(self) -> int:
        return self.labels_B.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of every image."""
        return tuple(self.images_BCHW.shape[1:])

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """All indices in random order: one epoch."""
        return rng.permutation(len(self))

    def read(self, indices: np.ndarray) -> Images:
        """The images of these indices, in their order."""
        chosen_B = torch.from_numpy(indices)
        return Images(images_BCHW=self.images_BCHW[chosen_B], labels_B=self.labels_B[chosen_B])

    def spread(self, num_images: int) -> "Split":
        """At most `num_images` of the images, see `evenly_spaced`."""
        chosen_B = torch.from_numpy(evenly_spaced(len(self), num_images))
        return Split(images_BCHW=self.images_BCHW[chosen_B], labels_B=self.labels_B[chosen_B])

    def content(self) -> Iterator[bytes | memoryview]:
        """Pixels and labels."""
        yield self.images_BCHW.contiguous().numpy().data
        yield self.labels_B.contiguous().numpy().data

    def se_pct(self, accuracy_pct: float) -> float:
        """Standard error of an accuracy measured on this split, in percentage points (binomial)."""
        share = accuracy_pct / 100
        return 100 * math.sqrt(share * (1 - share) / len(self))


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageData:
    """A data set, split. Two are the same data when their fingerprints are equal."""

    name: str
    train: TrainImages
    validation: Split
    """Cut from the training data; the only split a search sees."""
    test: Split
    """Reported last; it chooses nothing."""
    class_names: tuple[str, ...]
    content_size: int
    """Side the picture itself is resized to; zeros pad it to `image_size` (`nas.preprocess.fit_image`)."""

    def __post_init__(self) -> None:
        shape = self.train.shape
        for name, split in self._every_split.items():
            if split.shape != shape or shape[1] != shape[2] or shape[0] not in (1, 3):
                raise ValueError(
                    f"{name} images of {self.name} are {split.shape}, training images "
                    f"{shape}; all must be [1 or 3, size, size]"
                )
            if len(split) == 0:
                raise ValueError(f"the {name} split of {self.name} is empty; give it images")
            low, high = int(split.labels_B.min()), int(split.labels_B.max())
            if low < 0 or high >= self.num_classes:
                raise ValueError(
                    f"{name} labels of {self.name} are {low}..{high}; "
                    f"{self.num_classes} classes allow 0..{self.num_classes - 1}"
                )
        if not 0 < self.content_size <= self.image_size:
            raise ValueError(f"content_size {self.content_size} must be within 1..{self.image_size}")

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that are in memory; `train` is missing when it is streamed."""
        return {name: split for name, split in self._every_split.items() if isinstance(split, Split)}

    @property
    def _every_split(self) -> dict[str, TrainImages]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def num_channels(self) -> int:
        return self.train.shape[0]

    @property
    def image_size(self) -> int:
        return self.train.shape[1]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def calibration_images(self, num_images: int) -> Tensor:
        """At most `num_images` training images, see `evenly_spaced`; uint8 [B, C, H, W], kept for the next call."""
        if num_images not in self._calibration:
            self._calibration[num_images] = self.train.read(evenly_spaced(len(self.train), num_images)).images_BCHW
        return self._calibration[num_images]

    @cached_property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over the training split, pixels scaled to 0-1; on disk, over a part of it."""
        return self._statistics[0]

    @cached_property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel, likewise; at least one grey level, so dividing is safe."""
        return self._statistics[1]

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 over class names and the content of each split."""
        digest = hashlib.sha256(json.dumps([self.class_names, self.content_size]).encode())
        for name, split in self._every_split.items():
            digest.update(f"{name} {(len(split), *split.shape)}".encode())
            for part in split.content():
                digest.update(part)
        return digest.hexdigest()[:16]

    @cached_property
    def _calibration(self) -> dict[int, Tensor]:
        return {}

    @cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        in_memory = isinstance(self.train, Split)
        indices = evenly_spaced(len(self.train), len(self.train) if in_memory else NUM_STATISTICS_IMAGES)
        counts = torch.zeros(self.num_channels, 256, dtype=torch.int64)
        for start in range(0, len(indices), _STATISTICS_CHUNK):
            chunk_BCHW = self.train.read(indices[start : start + _STATISTICS_CHUNK]).images_BCHW
            for channel in range(self.num_channels):
                counts[channel] += torch.bincount(chunk_BCHW[:, channel].flatten(), minlength=256)
        shares = counts.double() / counts.sum(1, keepdim=True)
        levels = torch.arange(256, dtype=torch.float64) / 255
        means = shares @ levels
        variances = (shares * (levels - means[:, None]) ** 2).sum(1)
        return tuple(means.tolist()), tuple(max(value, 1 / 255) for value in variances.sqrt().tolist())


def evenly_spaced(total: int, count: int) -> np.ndarray:
    """Ascending indices below `total`, one from each of `count` equal stretches; all of them when there are fewer.

    The place inside a stretch varies (by the golden ratio), so that classes that take turns are all met.
    """
    count = min(count, total)
    edges = np.arange(count + 1) * total // count
    return edges[:-1] + (np.arange(count) * _GOLDEN % 1 * np.diff(edges)).astype(np.int64)
