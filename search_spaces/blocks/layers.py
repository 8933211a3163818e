"""The layers of blocks: a normed convolution for training, and the plain convolution or linear layer it becomes."""

from typing import cast

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

CONV_PRECISIONS = ("fp32", "int8", "bf16")
"""Precisions of a block of convolutions."""

LINEAR_PRECISIONS = ("fp32", "int8", "int8-dynamic", "w8", "w4", "bf16")
"""Precisions of a block that has linear layers once deployed; in int8-dynamic, w8 and w4 its convolutions stay fp32."""


class ConvNorm(nn.Sequential):
    """Convolution and batch norm; `folded()` is one convolution with bias. Zero padding keeps the size at stride 1."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, *, stride: int = 1, groups: int = 1):
        conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(out_channels))

    @property
    def conv(self) -> nn.Conv2d:
        return cast(nn.Conv2d, self[0])

    @property
    def norm(self) -> nn.BatchNorm2d:
        return cast(nn.BatchNorm2d, self[1])

    def folded(self) -> nn.Conv2d:
        """The convolution with its norm folded in (Jacob et al. 2018)."""
        return fuse_conv_bn_eval(self.conv, self.norm)

    def folded_linear(self) -> nn.Linear:
        """A 1x1 convolution with its norm folded in, as a linear layer over channels."""
        return as_linear(self.folded())


def conv_norm_axes(name: str, out: str, into: str = "") -> dict[str, tuple[str, ...]]:
    """`Block.channel_axes` of a `ConvNorm` called `name`, given what its output and input channels are."""
    norms = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.0.weight": (out, into, "", "")} | {f"{name}.1.{tensor}": (out,) for tensor in norms}


class ConvRelu(nn.Sequential):
    """A deployed convolution and its ReLU: runtimes fuse the two, and quantize what comes after the ReLU."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__(conv, nn.ReLU())


def as_linear(conv: nn.Conv2d) -> nn.Linear:
    """A 1x1 convolution as a linear layer over channels: runtimes quantize matrix multiplications dynamically."""
    linear = nn.Linear(conv.in_channels, conv.out_channels, bias=conv.bias is not None)
    linear.weight = nn.Parameter(conv.weight.detach().flatten(1))
    if conv.bias is not None:
        linear.bias = nn.Parameter(conv.bias.detach())
    return linear


def to_tokens(x_BCHW: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """(B, C, H, W) to (B, T, C). `shape` is (C, H, W): plain numbers leave no shape arithmetic in an exported graph."""
    channels, height, width = shape
    return x_BCHW.reshape(-1, channels, height * width).transpose(1, 2)


def to_image(x_BTC: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """(B, T, C) to (B, C, H, W), where `shape` is (C, H, W)."""
    return x_BTC.transpose(1, 2).reshape(-1, *shape)
