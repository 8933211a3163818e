"""One sub-network a step."""

import numpy as np
import torch

from nas.supernet import Supernet
from nas.training.strategies.base import Batch, Strategy, draw


class SinglePath(Strategy):
    """A random sub-network learns the labels (Guo et al. 2020); plain training in a space of one network."""

    def step(self, supernet: Supernet, batch: Batch, *, done: float, rng: np.random.Generator) -> torch.Tensor:
        return self.forward(supernet, draw(self.space, self.options, rng), batch.x_BCHW).learn_targets(batch.targets_BK)
