"""Augmented batches against moving one image at a time."""

import numpy as np
import torch
from torch.nn import functional as F

from nas.training.augmentation import augment


def test_every_image_is_a_shifted_and_maybe_mirrored_copy() -> None:
    images_BCHW = torch.randint(1, 256, (40, 3, 8, 8), dtype=torch.uint8)
    moved_BCHW = augment(images_BCHW, flip=True, max_shift=2, rng=np.random.default_rng(0))
    assert moved_BCHW.dtype == torch.uint8
    kinds = set()
    for image_CHW, moved_CHW in zip(images_BCHW, moved_BCHW, strict=True):
        padded_CHW = F.pad(image_CHW, (2, 2, 2, 2))
        mirrored_CHW = padded_CHW.flip(2)
        found = [
            (down, right, flipped)
            for down in range(5)
            for right in range(5)
            for flipped, source in ((False, padded_CHW), (True, mirrored_CHW))
            if torch.equal(source[:, down : down + 8, right : right + 8], moved_CHW)
        ]
        assert len(found) == 1
        kinds.add(found[0])
    assert {flipped for _, _, flipped in kinds} == {False, True}
    assert len({(down, right) for down, right, _ in kinds}) > 10


def test_nothing_moves_when_nothing_is_asked() -> None:
    images_BCHW = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(augment(images_BCHW, flip=False, max_shift=0, rng=np.random.default_rng(0)), images_BCHW)


def test_the_generator_decides() -> None:
    images_BCHW = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8)
    first, again, other = (
        augment(images_BCHW, flip=True, max_shift=2, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
