"""What a network is worth: batch-norm statistics of its own, then top-1 accuracy and smoother scores."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional as F

from nas.data import ImageData, Split

NetworkT = TypeVar("NetworkT", bound=nn.Module)

BATCH_SIZE = 256
"""Images whose batch-norm statistics are taken together, and at most so many are evaluated at once."""

BATCH_PIXELS = 256 * 32 * 32
"""Of images that are evaluated at once: 16 of 128 pixels take half the time of 256, whose activations are written to
memory that the system hands out, and empties, anew for each operator."""

NUM_CALIBRATION_IMAGES = 1024
"""Training images from which batch-norm statistics and activation ranges are taken."""


def normalize(images_BCHW: torch.Tensor, data: ImageData) -> torch.Tensor:
    """Pixels 0-255 to zero mean and unit deviation, channels last also where there is one channel."""
    mean, std = (255 * images_BCHW.new_tensor(values, dtype=torch.float32) for values in (data.mean, data.std))
    x_BCHW = torch.empty_like(images_BCHW, dtype=torch.float32, memory_format=torch.channels_last)
    torch.sub(images_BCHW, mean.view(-1, 1, 1), out=x_BCHW)
    return x_BCHW.div_(std.view(-1, 1, 1))


def batches(images_BCHW: torch.Tensor, data: ImageData, batch_size: int = BATCH_SIZE) -> Iterator[torch.Tensor]:
    """Normalised batches, in order."""
    return (normalize(part, data) for part in images_BCHW.split(batch_size))


@torch.no_grad()
def recalibrate(network: NetworkT, data: ImageData, *, num_images: int = NUM_CALIBRATION_IMAGES) -> NetworkT:
    """Take batch-norm statistics from evenly spaced training images; returns the network in eval mode.

    Statistics belong to a sub-network, never to the supernet (Yu and Huang 2019).
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over batches
    network.train()
    for x_BCHW in batches(data.calibration_images(num_images), data):
        network(x_BCHW)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.eval()


@torch.no_grad()
def predict_logits(network: nn.Module, images_BCHW: torch.Tensor, data: ImageData) -> torch.Tensor:
    """Logits (B, classes) of raw images."""
    num_at_once = images_at_once(images_BCHW, group=getattr(network, "batch_size", 1))
    return torch.cat([network(x_BCHW) for x_BCHW in batches(images_BCHW, data, num_at_once)])


def images_at_once(images_BCHW: torch.Tensor, *, group: int) -> int:
    """How many images fit into `BATCH_PIXELS`, in whole groups of as many as the target takes at once."""
    num_fit = min(BATCH_SIZE, BATCH_PIXELS // math.prod(images_BCHW.shape[2:]))
    return group * max(1, num_fit // group)


def predict_classes(network: nn.Module, images_BCHW: torch.Tensor, data: ImageData) -> torch.Tensor:
    """Top-1 classes (B,) of raw images."""
    return predict_logits(network, images_BCHW, data).argmax(dim=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """How a network does on a split. The two that count no hits depend less on which images are in it."""

    accuracy_pct: float
    """Top-1; higher is better."""
    cross_entropy: float
    """Mean over the images, in nats; lower is better."""
    true_class_pct: float
    """Mean probability of the true class; higher is better."""


def score(network: nn.Module, split: Split, data: ImageData) -> Scores:
    """The scores of an eval-mode network, whose outputs are logits."""
    return scores_of(predict_logits(network, split.images_BCHW, data), split)


def scores_of(logits_BK: torch.Tensor, split: Split) -> Scores:
    """The scores of logits of a split's images, in their order."""
    losses_B = F.cross_entropy(logits_BK.double(), split.labels_B, reduction="none")
    return Scores(
        accuracy_pct=100 * (logits_BK.argmax(dim=1) == split.labels_B).float().mean().item(),
        cross_entropy=losses_B.mean().item(),
        true_class_pct=100 * losses_B.neg().exp().mean().item(),
    )


def accuracy_pct(network: nn.Module, split: Split, data: ImageData) -> float:
    """Top-1 accuracy of an eval-mode network on a split, in %; higher is better."""
    return score(network, split, data).accuracy_pct
