"""Random mirroring and shifting of whole batches, on raw pixels.

One gather for a batch: the same ops one image at a time cost as much as a training step of a small network.
"""

import numpy as np
import torch
from torch.nn import functional as F


def augment(images_BCHW: torch.Tensor, *, flip: bool, max_shift: int, rng: np.random.Generator) -> torch.Tensor:
    """Each image moved by up to `max_shift` pixels both ways, zeros coming in; with `flip` half are mirrored."""
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
