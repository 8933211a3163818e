"""Gradients of attention that go against those of convolutions are bent aside."""

import numpy as np
import torch

from nas.errors import UserError
from nas.supernet import Supernet
from nas.training.options import TrainOptions
from nas.training.strategies.base import Batch, Strategy
from nas.training.strategies.students import distil, random_share
from search_spaces import Architecture, Choice, SearchSpace
from search_spaces.space import GeneValue


class ConflictFree(Strategy):
    """A sandwich in which networks without attention come first (after NASViT, Gong et al. 2022).

    The largest network learns the labels. Its students are the smallest network and a random one without attention on
    one side, and a random one with attention on the other. Where the gradients of both sides have a negative product,
    the one of the side with attention loses its part along the other.
    """

    def __init__(self, options: TrainOptions, space: SearchSpace):
        super().__init__(options, space)
        if not any(_with_attention(choice) and _without_attention(choice) for choice in space.choices):
            raise UserError(
                f"strategy conflict-free needs genes that choose between attention and something else; {space.name} "
                "has none, train it with the sandwich strategy"
            )

    def step(self, supernet: Supernet, batch: Batch, *, done: float, rng: np.random.Generator) -> torch.Tensor:
        space, x_BCHW = self.space, batch.x_BCHW
        largest = self.forward(supernet, space.largest(), x_BCHW)
        loss = largest.learn_targets(batch.targets_BK)
        if done < self.options.students_from_pct / 100:
            return loss
        num_seen = random_share(self.options, len(x_BCHW))
        plain = [(space.smallest(), len(x_BCHW)), (sample_convolution(space, rng), num_seen)]
        gradient = supernet.flat_grad
        so_far = gradient.clone()
        gradient.zero_()
        distil(self, supernet, x_BCHW, largest, plain, rng)
        convolution = gradient.clone()
        gradient.zero_()
        distil(self, supernet, x_BCHW, largest, [(sample_attention(space, rng), num_seen)], rng)
        remove_conflict(gradient, convolution)
        gradient += convolution
        gradient += so_far
        return loss


def remove_conflict(gradient: torch.Tensor, other: torch.Tensor) -> None:
    """Where their product is negative, project `gradient` in place on the plane normal to `other` (Yu et al. 2020)."""
    product = gradient @ other
    if product < 0:
        gradient -= product / (other @ other) * other


def sample_convolution(space: SearchSpace, rng: np.random.Generator) -> Architecture:
    """A random network without attention, as far as the genes leave that open."""
    values = [_without_attention(choice) or choice.values for choice in space.choices]
    return _draw(space, values, rng)


def sample_attention(space: SearchSpace, rng: np.random.Generator) -> Architecture:
    """A random network; if it came without attention, one of its places that may hold some gets it."""
    architecture = _draw(space, [choice.values for choice in space.choices], rng)
    for choice in rng.permutation(np.array(space.choices, dtype=object)):
        if any("attention" in str(value) for _, value in architecture.genes):
            break
        if attention := _with_attention(choice):
            value = attention[rng.integers(len(attention))]
            architecture = space.architecture(architecture.genotype | {choice.name: value})
    return architecture


def _draw(space: SearchSpace, values: list[tuple[GeneValue, ...]], rng: np.random.Generator) -> Architecture:
    pairs = zip(space.choices, values, strict=True)
    return space.architecture({choice.name: options[rng.integers(len(options))] for choice, options in pairs})


def _with_attention(choice: Choice) -> tuple[GeneValue, ...]:
    return tuple(value for value in choice.values if "attention" in str(value))


def _without_attention(choice: Choice) -> tuple[GeneValue, ...]:
    return tuple(value for value in choice.values if "attention" not in str(value))
