"""Progressive shrinking: the space opens gene by gene as training goes on."""

import numpy as np
import torch

from nas.supernet import Supernet
from nas.training.options import TrainOptions
from nas.training.strategies.base import Batch, Strategy
from nas.training.strategies.students import distil, random_share
from search_spaces import Architecture, SearchSpace

ORDER = ("depth", "width")
"""Last parts of names of genes that are set free first, in this order; all others follow together."""


class ProgressiveShrinking(Strategy):
    """The largest network alone, then also depths, then widths, then all else are free (Once-for-All, Cai et al. 2020).

    Genes that are not free yet keep their largest value. The first phase is as long as `students_from_pct` says, the
    others share the rest equally. The largest network learns the labels in every step, and `num_random` + 1 others its
    outputs.
    """

    def __init__(self, options: TrainOptions, space: SearchSpace):
        super().__init__(options, space)
        ranks = [_rank(choice.name) for choice in space.choices if len(choice.values) > 1]
        self._phases = sorted(set(ranks))

    def step(self, supernet: Supernet, batch: Batch, *, done: float, rng: np.random.Generator) -> torch.Tensor:
        largest = self.forward(supernet, self.space.largest(), batch.x_BCHW)
        loss = largest.learn_targets(batch.targets_BK)
        if done >= self.options.students_from_pct / 100:
            num_seen = random_share(self.options, len(batch.x_BCHW))
            students = [(self.sample(done, rng), num_seen) for _ in range(self.options.num_random + 1)]
            distil(self, supernet, batch.x_BCHW, largest, students, rng)
        return loss

    def sample(self, done: float, rng: np.random.Generator) -> Architecture:
        """A uniformly drawn network of those that are open once the share `done` of all steps is finished."""
        start = self.options.students_from_pct / 100
        num_open = 0
        if done >= start and start < 1:
            num_open = 1 + int((done - start) / (1 - start) * len(self._phases))
        free = self._phases[:num_open]
        indices = [
            rng.integers(len(choice.values)) if _rank(choice.name) in free else len(choice.values) - 1
            for choice in self.space.choices
        ]
        return self.space.decode(np.array(indices))


def _rank(gene: str) -> int:
    """When a gene is set free."""
    last = gene.rpartition(".")[2]
    return ORDER.index(last) if last in ORDER else len(ORDER)
