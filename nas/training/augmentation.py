"""Chance on images: mirrored, shifted and RandAugmented pixels, then mixed pairs and smoothed labels."""

import numpy as np
import torch
from torch.nn import functional as F
from torchvision.transforms import v2

from nas.training.options import TrainOptions


def augment(images_BCHW: torch.Tensor, options: TrainOptions, rng: np.random.Generator) -> torch.Tensor:
    """Raw pixels, mirrored, shifted (zeros come in) and RandAugmented as the options say.

    Mirroring and shifting are one gather for a batch: the same ops one image at a time cost as much as a training step
    of a small network.
    """
    moved_BCHW = _move(images_BCHW, flip=options.flip, max_shift=options.max_shift, rng=rng)
    if not options.randaugment:
        return moved_BCHW
    change = v2.RandAugment(num_ops=2, magnitude=options.randaugment)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**63)))
        return torch.stack([change(image_CHW) for image_CHW in moved_BCHW])


def mix(
    x_BCHW: torch.Tensor, labels_B: torch.Tensor, options: TrainOptions, *, num_classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and class probabilities (B, K) after mixup or cutmix and label smoothing; chance is torch's."""
    kinds = [kind for kind, alpha in ((v2.MixUp, options.mixup), (v2.CutMix, options.cutmix)) if alpha]
    if kinds:
        kind = kinds[int(torch.randint(len(kinds), ()))]
        alpha = options.mixup if kind is v2.MixUp else options.cutmix
        x_BCHW, targets_BK = kind(alpha=alpha, num_classes=num_classes)(x_BCHW, labels_B)
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
    else:
        targets_BK = F.one_hot(labels_B, num_classes).float()
    return x_BCHW, targets_BK * (1 - options.label_smoothing) + options.label_smoothing / num_classes


def _move(images_BCHW: torch.Tensor, *, flip: bool, max_shift: int, rng: np.random.Generator) -> torch.Tensor:
    num_images, _, height, width = images_BCHW.shape
    padded_BCHW = F.pad(images_BCHW, (max_shift,) * 4)
    down_B, right_B = torch.from_numpy(rng.integers(0, 2 * max_shift + 1, size=(2, num_images)))
    mirror_B = torch.from_numpy(rng.random(num_images) < 0.5) & flip
    columns_W = torch.arange(width)
    columns_BW = torch.where(mirror_B[:, None], columns_W.flip(0), columns_W) + right_B[:, None]
    rows_BH = torch.arange(height) + down_B[:, None]
    batch_B11 = torch.arange(num_images)[:, None, None]
    moved_BHWC = padded_BCHW.permute(0, 2, 3, 1)[batch_B11, rows_BH[:, :, None], columns_BW[:, None, :]]
    return moved_BHWC.permute(0, 3, 1, 2)
