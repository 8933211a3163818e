"""Classification head."""

from typing import Any

import torch
from torch import nn

from search_spaces.blocks.base import Block, Port
from search_spaces.blocks.layers import LINEAR_PRECISIONS


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
        return DeployedHead(self.classify)


class DeployedHead(nn.Module):
    """The classifier on one token, so that it is a matrix multiplication like every other linear layer."""

    def __init__(self, classify: nn.Linear):
        super().__init__()
        self.classify = classify

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        mean_BC = x_BCHW.mean(dim=(2, 3))
        return self.classify(mean_BC.unsqueeze(1)).squeeze(1)
