"""The images of every step: a pure function of seed and step, whoever reads them, so that no order is ever repeated."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from nas.data import ImageData
from nas.training.augmentation import augment
from nas.training.options import TrainOptions

ORDER, AUGMENT, STRATEGY = range(3)
"""Uses of chance; each has a generator of its own, see `generator`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawBatch:
    """One shard's images, augmented but neither normalised nor on the device."""

    views: tuple[torch.Tensor, ...]
    """uint8 (B, C, H, W), one for each augmentation that the strategy wants."""
    labels_B: torch.Tensor
    damaged: tuple[str, ...]
    """Images that couldn't be decoded; others stand in for them."""


def generator(options: TrainOptions, use: int, *numbers: int) -> np.random.Generator:
    """Chance for one use at one place of a run."""
    return np.random.default_rng([options.seed, use, *numbers])


def steps_per_epoch(data: ImageData, options: TrainOptions) -> int:
    """Whole steps of the training split; what is left over waits for the next epoch's order."""
    return max(1, len(data.train) // (options.batch_size * options.num_shards))


def load_batches(
    data: ImageData, options: TrainOptions, *, num_views: int, shards: range, steps: range
) -> Iterator[list[RawBatch]]:
    """The given shards of each step, read ahead by worker processes when the options ask for some."""
    batches = _Steps(data, options, num_views=num_views, shards=shards)
    return iter(DataLoader(batches, batch_size=None, sampler=steps, num_workers=options.num_workers))


class _Steps(Dataset[list[RawBatch]]):
    def __init__(self, data: ImageData, options: TrainOptions, *, num_views: int, shards: range):
        self._data, self._options, self._num_views, self._shards = data, options, num_views, shards
        self._order = lru_cache(maxsize=2)(self._order_of)

    def __getitem__(self, step: int) -> list[RawBatch]:
        return [self._read(step, shard) for shard in self._shards]

    def _read(self, step: int, shard: int) -> RawBatch:
        options = self._options
        epoch, position = divmod(step, steps_per_epoch(self._data, options))
        first = (position * options.num_shards + shard) * options.batch_size
        images = self._data.train.read(self._order(epoch)[first : first + options.batch_size])
        rng = generator(options, AUGMENT, step, shard)
        views = tuple(augment(images.images_BCHW, options, rng) for _ in range(self._num_views))
        return RawBatch(views=views, labels_B=images.labels_B, damaged=images.damaged)

    def _order_of(self, epoch: int) -> np.ndarray:
        return self._data.train.order(generator(self._options, ORDER, epoch))
