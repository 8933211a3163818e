"""Convolutional token mixer: depth-wise, then point-wise (MetaFormer's separable convolution, without expansion)."""

import torch
from torch import nn
from torch.nn import functional as F

from search_spaces.blocks.base import Block, Port
from search_spaces.blocks.layers import CONV_PRECISIONS, ConvNorm, ConvRelu, conv_norm_axes


class Conv(Block):
    """x + point-wise(relu(depth-wise(x))); a larger kernel holds the smaller ones at its centre (Once-for-All)."""

    precisions = CONV_PRECISIONS
    closing_scale = "pointwise.1.weight"

    def __init__(self, reads: tuple[Port, ...], *, kernel: int):
        super().__init__(reads)
        channels = reads[0].shape[0]
        self.depthwise = ConvNorm(channels, channels, kernel, groups=channels)
        self.pointwise = ConvNorm(channels, channels)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return x_BCHW + self.pointwise(F.relu(self.depthwise(x_BCHW)))

    def channel_axes(self) -> dict[str, tuple[str, ...]]:
        return conv_norm_axes("depthwise", "stream") | conv_norm_axes("pointwise", "stream", "stream")

    def deploy(self) -> nn.Module:
        return DeployedConv(self.depthwise.folded(), self.pointwise.folded())


class DeployedConv(nn.Module):
    def __init__(self, depthwise: nn.Conv2d, pointwise: nn.Conv2d):
        super().__init__()
        self.depthwise, self.pointwise = ConvRelu(depthwise), pointwise

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return x_BCHW + self.pointwise(self.depthwise(x_BCHW))
