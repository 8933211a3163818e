"""Every image once: the batch is divided among several sub-networks."""

import numpy as np
import torch
from torch.nn import functional as F

from nas.supernet import Supernet
from nas.training.strategies.base import Batch, Strategy, draw


class MultiArchitecture(Strategy):
    """Largest, smallest and random networks learn labels, each on its part of the batch (ViT-ResNAS, Liao et al. 2021).

    A step costs less than one pass of the largest network over the batch. Parts differ by at most one image and have at
    least two, so a small batch has fewer of them.
    """

    def step(self, supernet: Supernet, batch: Batch, *, done: float, rng: np.random.Generator) -> torch.Tensor:
        space, num_images = self.space, len(batch.x_BCHW)
        random = [draw(space, self.options, rng) for _ in range(self.options.num_random)]
        architectures = [space.largest(), space.smallest(), *random][: max(1, num_images // 2)]
        parts = zip(
            architectures,
            batch.x_BCHW.tensor_split(len(architectures)),
            batch.targets_BK.tensor_split(len(architectures)),
            strict=True,
        )
        loss = torch.zeros((), device=batch.x_BCHW.device)
        for architecture, x_BCHW, targets_BK in parts:
            passed = self.forward(supernet, architecture, x_BCHW)
            loss += passed.learn(F.cross_entropy(passed.logits_BK, targets_BK) * (len(x_BCHW) / num_images))
        return loss
