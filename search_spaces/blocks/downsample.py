"""Overlapping down-sampler between stages (CvT, PVTv2)."""

from typing import Any

import torch
from torch import nn

from search_spaces.blocks.base import Block, Port
from search_spaces.blocks.layers import CONV_PRECISIONS, ConvNorm, conv_norm_axes


class Downsample(Block):
    """A 3x3 convolution with stride 2 and batch norm."""

    precisions = CONV_PRECISIONS

    def __init__(self, reads: tuple[Port, ...], *, channels: int):
        super().__init__(reads)
        self.conv = ConvNorm(reads[0].shape[0], channels, 3, stride=2)

    @classmethod
    def writes(cls, reads: tuple[Port, ...], **args: Any) -> tuple[Port, ...]:
        _, height, width = reads[0].shape
        return (Port(shape=(args["channels"], -(-height // 2), -(-width // 2))),)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.conv(x_BCHW)

    def channel_axes(self) -> dict[str, tuple[str, ...]]:
        return conv_norm_axes("conv", "out", "in")

    def deploy(self) -> nn.Module:
        return self.conv.folded()
