"""What a strategy is: the sub-networks that one step trains, on which images and with which targets."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from nas.supernet import Supernet
from nas.training.options import TrainOptions
from search_spaces import Architecture, Network, SearchSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What a step sees, on the device that trains."""

    x_BCHW: torch.Tensor
    """Augmented images, normalised, channels last."""
    targets_BK: torch.Tensor
    """Class probabilities: one-hot, or softer after label smoothing, mixup or cutmix."""
    view_BCHW: torch.Tensor | None = None
    """The same images augmented once more, for strategies with `num_views = 2`."""


class Strategy(ABC):
    """One step's sub-networks. Constructors take the training options and the space."""

    num_views: ClassVar[int] = 1
    """Augmentations of every image that a step needs: 1 or 2."""

    def __init__(self, options: TrainOptions, space: SearchSpace):
        self.options, self.space = options, space
        self.heads = nn.Module()
        """What is trained besides the shared weights, such as projections; optimised, saved and resumed with them."""
        self.memory: dict[str, torch.Tensor] = {}
        """Tensors, such as a momentum teacher's weights, that a checkpoint must keep."""

    @abstractmethod
    def step(self, supernet: Supernet, batch: Batch, *, done: float, rng: np.random.Generator) -> torch.Tensor:
        """Add the step's gradients to the supernet's and return the loss to report, a scalar without graph.

        The shared gradient may hold that of another part of the step's images already. `done` is the share of all
        steps that are finished. All chance comes from `rng`, and from torch's generator, which is seeded for the step.
        """

    def after_update(self, supernet: Supernet) -> None:  # noqa: B027 - most strategies have nothing to do
        """Called once the optimizer has moved the weights."""

    def forward(self, supernet: Supernet, architecture: Architecture, x_BCHW: torch.Tensor) -> "Passed":
        """Gather a sub-network and run it as the options say: autocast, drop-path by its share of the depth."""
        network = supernet.subnet(architecture)
        rate = self.options.drop_path * len(network.specs) / self._largest_depth if self.options.drop_path else 0.0
        with torch.autocast(x_BCHW.device.type, torch.bfloat16, enabled=self.options.mixed_precision == "bf16"):
            logits_BK = network(x_BCHW, drop_path=rate)
        return Passed(supernet=supernet, network=network, logits_BK=logits_BK.float())

    @property
    def _largest_depth(self) -> int:
        return len(self.space.blocks(self.space.largest()))


def draw(space: SearchSpace, options: TrainOptions, rng: np.random.Generator) -> Architecture:
    """A random sub-network, leaning towards large ones by `size_bias`."""
    if not options.size_bias:
        return space.sample(rng)
    num_values = np.array([len(choice.values) for choice in space.choices])
    return space.decode((rng.random(len(num_values)) ** (1 - options.size_bias) * num_values).astype(int))


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """A sub-network after its forward pass. Only its latest pass can be learnt from."""

    supernet: Supernet
    network: Network
    logits_BK: torch.Tensor

    def learn(self, loss: torch.Tensor) -> torch.Tensor:
        """Backward pass and scatter; returns the loss without graph."""
        loss.backward()
        self.supernet.scatter(self.network)
        return loss.detach()

    def learn_targets(self, targets_BK: torch.Tensor) -> torch.Tensor:
        """Towards class probabilities, by cross-entropy."""
        return self.learn(F.cross_entropy(self.logits_BK, targets_BK))
