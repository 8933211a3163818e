"""The layers of blocks: a normed convolution for training, and the plain convolution or point-wise layer it becomes."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F
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

    def folded_pointwise(self, *, relu: bool = False) -> "Pointwise":
        """A 1x1 convolution with its norm folded in, as a point-wise layer."""
        return Pointwise(self.folded(), relu=relu)


def conv_norm_axes(name: str, out: str, into: str = "") -> dict[str, tuple[str, ...]]:
    """`Block.channel_axes` of a `ConvNorm` called `name`, given what its output and input channels are."""
    norms = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.0.weight": (out, into, "", "")} | {f"{name}.1.{tensor}": (out,) for tensor in norms}


class ConvRelu(nn.Sequential):
    """A deployed convolution and its ReLU: runtimes fuse the two, and quantize what comes after the ReLU.

    With `exact` it stays fp32 where its block is static int8.
    """

    def __init__(self, conv: nn.Conv2d, *, exact: bool = False):
        super().__init__(conv, nn.ReLU())
        self.exact = exact


class Pointwise(nn.Linear):
    """A 1x1 convolution, deployed: on images (B, C, H, W) it stays one, on tokens (B, T, C) it is a linear layer.

    Runtimes quantize matrix multiplications dynamically; convolutions need no transposition. With `relu` one follows.
    `outputs` are the output channels that it has.
    """

    def __init__(self, conv: nn.Conv2d, *, outputs: slice = slice(None), relu: bool = False):
        weight_OI = conv.weight.detach().flatten(1)[outputs]
        super().__init__(conv.in_channels, len(weight_OI), bias=conv.bias is not None)
        self.act = nn.ReLU() if relu else None
        self.weight = nn.Parameter(weight_OI)
        if conv.bias is not None:
            self.bias = nn.Parameter(conv.bias.detach()[outputs])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.conv2d(x, self.weight[:, :, None, None], self.bias) if x.ndim == 4 else super().forward(x)
        return y if self.act is None else self.act(y)


class PointwiseBlock(nn.Module):
    """A deployed block of point-wise layers with two forms of equal outputs: over images, and over tokens.

    Torch runs the first. An ONNX file has it in the precisions `convolutions`, and the second in all others.
    """

    convolutions: Collection[str] = ()
    over_tokens = False


@contextmanager
def file_form(block: nn.Module, precision: str) -> Iterator[None]:
    """Inside the `with` block, a deployed block runs in the form that a file has in this precision."""
    if isinstance(block, PointwiseBlock):
        block.over_tokens = precision not in block.convolutions
    try:
        yield
    finally:
        if isinstance(block, PointwiseBlock):
            block.over_tokens = False


def to_tokens(x_BCHW: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """(B, C, H, W) to (B, T, C). `shape` is (C, H, W): plain numbers leave no shape arithmetic in an exported graph."""
    channels, height, width = shape
    return x_BCHW.reshape(-1, channels, height * width).transpose(1, 2)


def to_image(x_BTC: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """(B, T, C) to (B, C, H, W), where `shape` is (C, H, W)."""
    return x_BTC.transpose(1, 2).reshape(-1, *shape)
