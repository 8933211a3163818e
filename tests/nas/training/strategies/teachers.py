"""Small frozen networks that stand in for trained teachers."""

import torch
from torch import nn


class SmallTeacher(nn.Module):
    """Two convolutions and a classifier for grey or coloured images; equal weights each time."""

    def __init__(self, num_channels: int, num_classes: int = 4):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first = nn.Conv2d(num_channels, 12, 3, stride=2, padding=1)
            self.norm = nn.BatchNorm2d(12)
            self.second = nn.Conv2d(12, 20, 3, stride=2, padding=1)
            self.classify = nn.Linear(20, num_classes)

    def maps(self, x_BCHW: torch.Tensor) -> list[torch.Tensor]:
        first_BCHW = self.norm(self.first(x_BCHW)).relu()
        return [first_BCHW, self.second(first_BCHW).tanh()]

    def forward_features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.maps(x_BCHW)[-1]

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return 5 * self.classify(self.forward_features(x_BCHW).mean(dim=(2, 3)))


class StageTeacher(nn.Module):
    """The same network's maps."""

    def __init__(self, num_channels: int):
        super().__init__()
        self.network = SmallTeacher(num_channels)

    def forward(self, x_BCHW: torch.Tensor) -> list[torch.Tensor]:
        return self.network.maps(x_BCHW)


def grey() -> nn.Module:
    return SmallTeacher(1)


def coloured() -> nn.Module:
    return SmallTeacher(3)


def of_ten_classes() -> nn.Module:
    return SmallTeacher(1, num_classes=10)


def grey_stages() -> nn.Module:
    return StageTeacher(1)


def coloured_stages() -> nn.Module:
    return StageTeacher(3)


def no_module() -> str:
    return "teacher"
