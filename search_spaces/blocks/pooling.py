"""Pooling token mixer (PoolFormer): no weights but a norm, and one depth-wise convolution once deployed."""

import torch
from torch import nn
from torch.nn import functional as F

from search_spaces.blocks.base import Block, Port


class Pooling(Block):
    """x + norm(average of 3x3 neighbours - x); the border counts as zeros, so that the block is a convolution."""

    precisions = ("fp32", "bf16")
    closing_scale = "norm.weight"

    def __init__(self, reads: tuple[Port, ...]):
        super().__init__(reads)
        self.norm = nn.BatchNorm2d(reads[0].shape[0])

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return x_BCHW + self.norm(F.avg_pool2d(x_BCHW, 3, stride=1, padding=1) - x_BCHW)

    def channel_axes(self) -> dict[str, tuple[str, ...]]:
        return dict.fromkeys(("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"), ("stream",))

    def deploy(self) -> nn.Module:
        channels = self.norm.num_features
        mean_C, var_C = self.norm.running_mean, self.norm.running_var
        assert mean_C is not None
        assert var_C is not None
        scale = (self.norm.weight / torch.sqrt(var_C + self.norm.eps)).detach()
        kernel = scale.new_full((3, 3), 1 / 9)
        kernel[1, 1] -= 1
        conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        weight_C133 = scale[:, None, None, None] * kernel
        weight_C133[:, :, 1, 1] += 1  # the residual
        conv.weight = nn.Parameter(weight_C133)
        conv.bias = nn.Parameter((self.norm.bias - mean_C * scale).detach())
        return conv
