"""Attention token mixers: softmax attention and linear attention, both behind a depth-wise convolution (CvT).

The convolution brings position and locality, so no position embedding is needed and any image size works. Keys and
values may be averaged over `reduction` x `reduction` windows first (PVT), for the sake of high resolution.
"""

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


def split_heads(x_BTC: torch.Tensor, num_tokens: int, num_heads: int, head_dim: int) -> torch.Tensor:
    """(B, T, C) to (B, N, T, D)."""
    return x_BTC.reshape(-1, num_tokens, num_heads, head_dim).transpose(1, 2)


def softmax_attention(q_BNTD: torch.Tensor, k_BNSD: torch.Tensor, v_BNSD: torch.Tensor) -> torch.Tensor:
    """Vaswani et al. 2017; (B, N, T, D)."""
    return F.scaled_dot_product_attention(q_BNTD, k_BNSD, v_BNSD)


def linear_attention(q_BNTD: torch.Tensor, k_BNSD: torch.Tensor, v_BNSD: torch.Tensor) -> torch.Tensor:
    """ReLU kernel instead of softmax (EfficientViT, Cai et al. 2023): cost linear in tokens; (B, N, T, D).

    Queries and keys come after the ReLU.
    """
    context_BNDD = k_BNSD.transpose(-1, -2) @ v_BNSD
    total_BNT1 = q_BNTD @ k_BNSD.sum(dim=-2, keepdim=True).transpose(-1, -2)
    return (q_BNTD @ context_BNDD) / (total_BNT1 + 1e-3)


def linear_attention_by_channels(q_BNDT: torch.Tensor, k_BNDS: torch.Tensor, v_BNDS: torch.Tensor) -> torch.Tensor:
    """`linear_attention` of tensors with channels before tokens; (B, N, D, T)."""
    context_BNDD = v_BNDS @ k_BNDS.transpose(-1, -2)
    total_BN1T = k_BNDS.sum(dim=-1, keepdim=True).transpose(-1, -2) @ q_BNDT
    return (context_BNDD @ q_BNDT) / (total_BN1T + 1e-3)


class Attention(Block):
    """x + project(softmax attention(q, k, v of depth-wise(x)))."""

    precisions = LINEAR_PRECISIONS
    closing_scale = "project.1.weight"
    mix = staticmethod(softmax_attention)

    def __init__(self, reads: tuple[Port, ...], *, head_dim: int, reduction: int = 1):
        super().__init__(reads)
        channels = reads[0].shape[0]
        self.head_dim, self.reduction = min(head_dim, channels), reduction
        self.local = ConvNorm(channels, channels, 3, groups=channels)
        self.query = nn.Conv2d(channels, channels, 1)
        self.key_value = nn.Conv2d(channels, 2 * channels, 1)
        self.project = ConvNorm(channels, channels)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        local_BCHW = self.local(x_BCHW)
        pooled_BCHW = F.avg_pool2d(local_BCHW, self.reduction) if self.reduction > 1 else local_BCHW
        query_BCHW, (key_BCHW, value_BCHW) = self.query(local_BCHW), self.key_value(pooled_BCHW).chunk(2, dim=1)
        q_BNTD, k_BNSD, v_BNSD = (self._heads(t) for t in (query_BCHW, key_BCHW, value_BCHW))
        mixed_BCHW = self.mix(q_BNTD, k_BNSD, v_BNSD).transpose(-1, -2).reshape(x_BCHW.shape)
        return x_BCHW + self.project(mixed_BCHW)

    def _heads(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to (B, N, T, D)."""
        return x_BCHW.flatten(2).unflatten(1, (-1, self.head_dim)).transpose(-1, -2)

    def packed(self) -> dict[str, tuple[int, ...]]:
        channels = self.query.in_channels
        halves = (2, channels)
        return {"key_value.weight": (*halves, channels, 1, 1), "key_value.bias": halves}

    def channel_axes(self) -> dict[str, tuple[str, ...]]:
        """Channels of the stream; those inside heads stay in their order."""
        inner = {"query.weight": ("", "stream", "", ""), "key_value.weight": ("", "", "stream", "", "")}
        return inner | conv_norm_axes("local", "stream") | conv_norm_axes("project", "stream")

    def deploy(self) -> nn.Module:
        return DeployedAttention(self)


class LinearAttention(Attention):
    """x + project(linear attention(q, k, v of depth-wise(x)))."""

    @staticmethod
    def mix(q_BNTD: torch.Tensor, k_BNSD: torch.Tensor, v_BNSD: torch.Tensor) -> torch.Tensor:
        return linear_attention(F.relu(q_BNTD), F.relu(k_BNSD), v_BNSD)


class DeployedAttention(PointwiseBlock):
    """The same with folded norms, and softmax's scale inside the query's weights; a ReLU follows its layer at once.

    Keys and values are unpacked: of one layer for both, runtimes copy each from what it gives.
    """

    def __init__(self, block: Attention):
        super().__init__()
        self.head_dim, self.reduction, self.linear = block.head_dim, block.reduction, isinstance(block, LinearAttention)
        self.shape = block.reads[0].shape
        self.local = block.local.folded()
        channels = block.query.out_channels
        self.query = Pointwise(block.query, relu=self.linear)
        self.key = Pointwise(block.key_value, outputs=slice(channels), relu=self.linear)
        self.value = Pointwise(block.key_value, outputs=slice(channels, None))
        self.project = block.project.folded_pointwise()
        if not self.linear:
            scale = block.head_dim**-0.5
            self.query.weight = nn.Parameter(self.query.weight.detach() * scale)
            self.query.bias = nn.Parameter(self.query.bias.detach() * scale)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        local_BCHW = self.local(x_BCHW)
        pooled_BCHW = F.avg_pool2d(local_BCHW, self.reduction) if self.reduction > 1 else local_BCHW
        mixed_BCHW = (self._over_tokens if self.over_tokens else self._over_images)(local_BCHW, pooled_BCHW)
        return x_BCHW + mixed_BCHW

    def _over_images(self, local_BCHW: torch.Tensor, pooled_BCHW: torch.Tensor) -> torch.Tensor:
        """Channels come first throughout, so nothing is transposed but inside products."""
        num_heads = self.shape[0] // self.head_dim
        images = (self.query(local_BCHW), self.key(pooled_BCHW), self.value(pooled_BCHW))
        q_BNDT, k_BNDS, v_BNDS = (
            x_BCHW.reshape(-1, num_heads, self.head_dim, x_BCHW.shape[2] * x_BCHW.shape[3]) for x_BCHW in images
        )
        if self.linear:
            mixed_BNDT = linear_attention_by_channels(q_BNDT, k_BNDS, v_BNDS)
        else:
            mixed_BNDT = v_BNDS @ (q_BNDT.transpose(-1, -2) @ k_BNDS).softmax(dim=-1).transpose(-1, -2)
        return self.project(mixed_BNDT.reshape(-1, *self.shape))

    def _over_tokens(self, local_BCHW: torch.Tensor, pooled_BCHW: torch.Tensor) -> torch.Tensor:
        channels, height, width = self.shape
        pooled_shape = (channels, height // self.reduction, width // self.reduction)
        num_tokens, num_pooled = height * width, pooled_shape[1] * pooled_shape[2]
        heads = (channels // self.head_dim, self.head_dim)
        pooled_BSC = to_tokens(pooled_BCHW, pooled_shape)
        q_BNTD = split_heads(self.query(to_tokens(local_BCHW, self.shape)), num_tokens, *heads)
        k_BNSD = split_heads(self.key(pooled_BSC), num_pooled, *heads)
        v_BNSD = split_heads(self.value(pooled_BSC), num_pooled, *heads)
        if self.linear:
            mixed_BNTD = linear_attention(q_BNTD, k_BNSD, v_BNSD)
        else:
            mixed_BNTD = (q_BNTD @ k_BNSD.transpose(-1, -2)).softmax(dim=-1) @ v_BNSD
        mixed_BTC = mixed_BNTD.transpose(1, 2).reshape(-1, num_tokens, channels)
        return to_image(self.project(mixed_BTC), self.shape)
