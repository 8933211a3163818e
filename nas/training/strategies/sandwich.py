"""The sandwich rule with in-place distillation."""

import numpy as np
import torch

from nas.supernet import Supernet
from nas.training.strategies.base import Batch, Strategy


class Sandwich(Strategy):
    """The largest network learns the labels; the smallest and random ones learn its outputs (BigNAS, Yu et al. 2020).

    The distillation is in place: the largest network's outputs of the same step, without gradient.
    """

    def step(self, supernet: Supernet, batch: Batch, *, done: float, rng: np.random.Generator) -> torch.Tensor:
        space, options = self.space, self.options
        largest = self.forward(supernet, space.largest(), batch.x_BCHW)
        loss = largest.learn_targets(batch.targets_BK)
        if done < options.students_from_pct / 100:
            return loss
        num_images = len(batch.x_BCHW)
        soft_BK = largest.logits_BK.detach().softmax(dim=1)
        num_random = max(2, round(num_images * options.random_share_pct / 100))
        students = [(space.smallest(), num_images)]
        students += [(space.sample(rng), num_random) for _ in range(options.num_random)]
        for architecture, num_seen in students:
            self.forward(supernet, architecture, batch.x_BCHW[:num_seen]).learn_targets(soft_BK[:num_seen])
        return loss
