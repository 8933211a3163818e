"""Channel mixers: point-wise networks."""

import torch
from torch import nn
from torch.nn import functional as F

from search_spaces.blocks.base import Block, Port
from search_spaces.blocks.layers import (
    LINEAR_PRECISIONS,
    ConvNorm,
    Pointwise,
    PointwiseBlock,
    conv_norm_axes,
    to_image,
    to_tokens,
)


class Mlp(Block):
    """x + reduce(relu(expand(x))), with `ratio` times as many hidden channels and batch norm after both (LeViT)."""

    precisions = LINEAR_PRECISIONS
    closing_scale = "reduce.1.weight"

    def __init__(self, reads: tuple[Port, ...], *, ratio: int):
        super().__init__(reads)
        channels = reads[0].shape[0]
        self.expand = ConvNorm(channels, ratio * channels)
        self.reduce = ConvNorm(ratio * channels, channels)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return x_BCHW + self.reduce(F.relu(self.expand(x_BCHW)))

    def channel_axes(self) -> dict[str, tuple[str, ...]]:
        return conv_norm_axes("expand", "hidden", "stream") | conv_norm_axes("reduce", "stream", "hidden")

    def deploy(self) -> nn.Module:
        return DeployedMlp(self.expand.folded_pointwise(relu=True), self.reduce.folded_pointwise(), self.reads[0].shape)


class GatedMlp(Block):
    """x + reduce(relu(gate) * value): ReGLU (Shazeer 2020), gate and value packed into one convolution."""

    precisions = LINEAR_PRECISIONS
    closing_scale = "reduce.1.weight"

    def __init__(self, reads: tuple[Port, ...], *, ratio: int):
        super().__init__(reads)
        channels = reads[0].shape[0]
        self.expand = ConvNorm(channels, 2 * ratio * channels)
        self.reduce = ConvNorm(ratio * channels, channels)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        gate_BCHW, value_BCHW = self.expand(x_BCHW).chunk(2, dim=1)
        return x_BCHW + self.reduce(F.relu(gate_BCHW) * value_BCHW)

    def packed(self) -> dict[str, tuple[int, ...]]:
        conv = self.expand.conv
        halves = (2, conv.out_channels // 2)
        return {
            "expand.0.weight": (*halves, conv.in_channels, 1, 1),
            "expand.1.weight": halves,
            "expand.1.bias": halves,
        }

    def channel_axes(self) -> dict[str, tuple[str, ...]]:
        """Gate and value of a hidden channel move together."""
        expand = conv_norm_axes("expand", "hidden", "stream")
        packed = {name: ("", *axes) for name, axes in expand.items()}
        return packed | conv_norm_axes("reduce", "stream", "hidden")

    def deploy(self) -> nn.Module:
        return DeployedMlp(GatedPointwise(self.expand.folded()), self.reduce.folded_pointwise(), self.reads[0].shape)


class GatedPointwise(nn.Module):
    """relu(gate(x)) * value(x), unpacked: runtimes split what one packed layer gives by copying, and fuse no ReLU."""

    def __init__(self, packed: nn.Conv2d):
        super().__init__()
        hidden = packed.out_channels // 2
        self.gate = Pointwise(packed, outputs=slice(hidden), relu=True)
        self.value = Pointwise(packed, outputs=slice(hidden, None))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gate(x) * self.value(x)


class DeployedMlp(PointwiseBlock):
    """Either of them with folded norms; `expand` gives the hidden channels, in both forms."""

    def __init__(self, expand: Pointwise | GatedPointwise, reduce: Pointwise, shape: tuple[int, ...]):
        super().__init__()
        self.expand, self.reduce, self.shape = expand, reduce, shape

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        if self.over_tokens:
            y_BTC = self.reduce(self.expand(to_tokens(x_BCHW, self.shape)))
            return x_BCHW + to_image(y_BTC, self.shape)
        return x_BCHW + self.reduce(self.expand(x_BCHW))
