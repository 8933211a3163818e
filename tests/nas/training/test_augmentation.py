"""Augmented batches against moving one image at a time."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nas.training.augmentation import augment, mix
from nas.training.options import TrainOptions


def test_every_image_is_a_shifted_and_maybe_mirrored_copy() -> None:
    images_BCHW = torch.randint(1, 256, (40, 3, 8, 8), dtype=torch.uint8)
    moved_BCHW = augment(images_BCHW, TrainOptions(max_shift=2), rng=np.random.default_rng(0))
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
    assert torch.equal(augment(images_BCHW, TrainOptions(flip=False), rng=np.random.default_rng(0)), images_BCHW)


def test_the_generator_decides() -> None:
    images_BCHW = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8)
    first, again, other = (
        augment(images_BCHW, TrainOptions(max_shift=2), rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_randaugment_changes_images_one_by_one_and_keeps_their_type() -> None:
    images_BCHW = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8).repeat(12, 1, 1, 1)
    changed_BCHW = augment(images_BCHW, TrainOptions(flip=False, randaugment=15), rng=np.random.default_rng(0))
    assert (changed_BCHW.dtype, changed_BCHW.shape) == (torch.uint8, images_BCHW.shape)
    assert len({image.numpy().tobytes() for image in changed_BCHW}) > 6


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_images_have_the_probabilities_of_their_parts(kind: str) -> None:
    torch.manual_seed(0)
    labels_B = torch.arange(8) % 4
    constant_BCHW = labels_B[:, None, None, None].float().expand(8, 1, 8, 8)
    x_BCHW, targets_BK = mix(constant_BCHW, labels_B, TrainOptions(**{kind: 1.0}), num_classes=4)
    means_B = x_BCHW.mean(dim=(1, 2, 3))
    torch.testing.assert_close(means_B, targets_BK @ torch.arange(4.0))
    assert not torch.equal(means_B, labels_B.float())


def test_smoothing_spreads_its_share_over_all_classes() -> None:
    x_BCHW, labels_B = torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, 3])
    _, targets_BK = mix(x_BCHW, labels_B, TrainOptions(label_smoothing=0.2), num_classes=4)
    expected_BK = torch.full((3, 4), 0.05)
    expected_BK[torch.arange(3), labels_B] = 0.85
    torch.testing.assert_close(targets_BK, expected_BK)
