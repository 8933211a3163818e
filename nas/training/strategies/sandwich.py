"""The sandwich rule with in-place distillation."""

import numpy as np
import torch

from nas.supernet import Supernet
from nas.training.strategies.base import Batch, Strategy
from nas.training.strategies.students import distil, sandwich_students


class Sandwich(Strategy):
    """The largest network learns the labels; the smallest and random ones learn its outputs (BigNAS, Yu et al. 2020).

    The distillation is in place: the largest network's outputs of the same step, without gradient.
    """

    def step(self, supernet: Supernet, batch: Batch, *, done: float, rng: np.random.Generator) -> torch.Tensor:
        largest = self.forward(supernet, self.space.largest(), batch.x_BCHW)
        loss = largest.learn_targets(batch.targets_BK)
        if done >= self.options.students_from_pct / 100:
            students = sandwich_students(self.space, self.options, len(batch.x_BCHW), rng)
            distil(self, supernet, batch.x_BCHW, largest, students, rng)
        return loss
