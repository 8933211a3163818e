"""Strict fairness: every value of a gene is trained equally often."""

import numpy as np
import torch

from nas.supernet import Supernet
from nas.training.strategies.base import Batch, Strategy
from search_spaces import Architecture, SearchSpace


class Fair(Strategy):
    """As many networks a step as a gene has values, at most; each learns the labels (FairNAS, Chu et al. 2021).

    Between them they use every value of each gene, each equally often, or with a difference of one where the number of
    networks is no multiple of the number of values. One update follows the sum of their gradients.
    """

    def step(self, supernet: Supernet, batch: Batch, *, done: float, rng: np.random.Generator) -> torch.Tensor:
        architectures = fair_architectures(self.space, rng)
        loss = torch.zeros((), device=batch.x_BCHW.device)
        for architecture in architectures:
            loss += self.forward(supernet, architecture, batch.x_BCHW).learn_targets(batch.targets_BK)
        return loss / len(architectures)


def fair_architectures(space: SearchSpace, rng: np.random.Generator) -> list[Architecture]:
    """Networks whose values of each gene are random permutations of all its values, one after the other."""
    num_networks = max(len(choice.values) for choice in space.choices)
    columns = [_permutations(len(choice.values), num_networks, rng) for choice in space.choices]
    return [space.decode(indices) for indices in np.stack(columns, axis=1)]


def _permutations(num_values: int, length: int, rng: np.random.Generator) -> np.ndarray:
    num_needed = -(-length // num_values)
    return np.concatenate([rng.permutation(num_values) for _ in range(num_needed)])[:length]
