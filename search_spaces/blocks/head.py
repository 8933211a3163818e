"""Classification head."""

from typing import Any

import torch
from torch import nn

from search_spaces.blocks.base import Block, Port
from search_spaces.blocks.layers import LINEAR_PRECISIONS, to_tokens


class Head(Block):
    """Logits (B, num_classes) of the image's mean features."""

    precisions = LINEAR_PRECISIONS

    def __init__(self, reads: tuple[Port, ...], *, num_classes: int):
        super().__init__(reads)
        self.classify = nn.Linear(reads[0].shape[0], num_classes)

    @classmethod
    def writes(cls, reads: tuple[Port, ...], **args: Any) -> tuple[Port, ...]:
        return (Port(stream="logits", layout="BC", shape=(args["num_classes"],)),)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.classify(x_BCHW.mean(dim=(2, 3)))

    def channel_axes(self) -> dict[str, tuple[str, ...]]:
        return {"classify.weight": ("", "in")}

    def deploy(self) -> nn.Module:
        return DeployedHead(self.classify, self.reads[0].shape)


class DeployedHead(nn.Module):
    """The classifier on one token, so that it is a matrix multiplication like every other linear layer."""

    def __init__(self, classify: nn.Linear, shape: tuple[int, ...]):
        super().__init__()
        self.classify, self.shape = classify, shape

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        mean_B1C = to_tokens(x_BCHW, self.shape).mean(dim=1, keepdim=True)
        return self.classify(mean_B1C).squeeze(1)
