"""Channel mixers: point-wise networks. Trained as 1x1 convolutions, deployed as linear layers over tokens."""

import torch
from torch import nn
from torch.nn import functional as F

from search_spaces.blocks.base import Block, Port
from search_spaces.blocks.layers import LINEAR_PRECISIONS, ConvNorm, conv_norm_axes, to_image, to_tokens


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
        return DeployedMlp(self.expand.folded_linear(), self.reduce.folded_linear(), self.reads[0].shape, gated=False)


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
        return DeployedMlp(self.expand.folded_linear(), self.reduce.folded_linear(), self.reads[0].shape, gated=True)


class DeployedMlp(nn.Module):
    """The same over tokens."""

    def __init__(self, expand: nn.Linear, reduce: nn.Linear, shape: tuple[int, ...], *, gated: bool):
        super().__init__()
        self.expand, self.act, self.reduce = expand, nn.ReLU(), reduce
        self.shape, self.gated = shape, gated

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        hidden_BTC = self.expand(to_tokens(x_BCHW, self.shape))
        if self.gated:
            gate_BTC, value_BTC = hidden_BTC.chunk(2, dim=-1)
            hidden_BTC = self.act(gate_BTC) * value_BTC
        else:
            hidden_BTC = self.act(hidden_BTC)
        return x_BCHW + to_image(self.reduce(hidden_BTC), self.shape)
