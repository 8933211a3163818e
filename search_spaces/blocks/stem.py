"""Convolutional stem: overlapping 3x3 convolutions instead of patches (Xiao et al. 2021)."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from search_spaces.blocks.base import Block, Port
from search_spaces.blocks.layers import CONV_PRECISIONS, ConvNorm, ConvRelu, conv_norm_axes


class Stem(Block):
    """Two 3x3 convolutions, of stride 2 and of `stride` (1 or 2), with half the channels between them.

    Static int8 leaves the first one in fp32: of an image's few channels integers make more work than they save.
    """

    precisions = CONV_PRECISIONS

    def __init__(self, reads: tuple[Port, ...], *, channels: int, stride: int):
        super().__init__(reads)
        self.first = ConvNorm(reads[0].shape[0], channels // 2, 3, stride=2)
        self.second = ConvNorm(channels // 2, channels, 3, stride=stride)

    @classmethod
    def writes(cls, reads: tuple[Port, ...], **args: Any) -> tuple[Port, ...]:
        _, height, width = reads[0].shape
        reduction = 2 * args["stride"]
        return (Port(shape=(args["channels"], -(-height // reduction), -(-width // reduction))),)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.second(F.relu(self.first(x_BCHW)))

    def channel_axes(self) -> dict[str, tuple[str, ...]]:
        return conv_norm_axes("first", "hidden") | conv_norm_axes("second", "out", "hidden")

    def deploy(self) -> nn.Module:
        return nn.Sequential(ConvRelu(self.first.folded(), exact=True), self.second.folded())
