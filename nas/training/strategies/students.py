"""Students: sub-networks that learn the outputs of larger ones, of the same step and on the same images."""

from collections.abc import Iterable

import numpy as np
import torch

from nas.supernet import Supernet
from nas.training.distillation import DIVERGENCES
from nas.training.options import TrainOptions
from nas.training.strategies.base import Passed, Strategy, draw
from search_spaces import Architecture, SearchSpace
from search_spaces.cost import network_cost


def random_share(options: TrainOptions, num_images: int) -> int:
    """Images that a random student sees, at least two."""
    return max(2, round(num_images * options.random_share_pct / 100))


def sandwich_students(
    space: SearchSpace, options: TrainOptions, num_images: int, rng: np.random.Generator
) -> list[tuple[Architecture, int]]:
    """The smallest network and random ones, each with the number of images it sees."""
    random = [(draw(space, options, rng), random_share(options, num_images)) for _ in range(options.num_random)]
    return [(space.smallest(), num_images), *random]


def distil(
    strategy: Strategy,
    supernet: Supernet,
    x_BCHW: torch.Tensor,
    largest: Passed,
    students: Iterable[tuple[Architecture, int]],
    rng: np.random.Generator,
) -> None:
    """Each student learns, on its first images, the outputs of the largest network or of a random larger one."""
    divergence, space = DIVERGENCES[strategy.options.divergence], strategy.space
    soft_BK = largest.logits_BK.detach().softmax(dim=1)
    if strategy.options.soft_targets == "largest":
        for architecture, num_seen in students:
            student = strategy.forward(supernet, architecture, x_BCHW[:num_seen])
            student.learn(divergence(student.logits_BK, soft_BK[:num_seen]))
        return
    by_macs = [(network_cost(space.blocks(architecture)).macs, architecture, seen) for architecture, seen in students]
    by_macs.sort(key=lambda student: -student[0])
    teachers = [(network_cost(largest.network.specs).macs, soft_BK)]
    for macs, architecture, num_seen in by_macs:
        larger = [soft for teacher_macs, soft in teachers if teacher_macs > macs] or [soft_BK]
        chosen_BK = larger[rng.integers(len(larger))]
        targets_BK = torch.cat([chosen_BK, soft_BK[len(chosen_BK) :]])  # who saw fewer images leaves the rest to it
        student = strategy.forward(supernet, architecture, x_BCHW[:num_seen])
        student.learn(divergence(student.logits_BK, targets_BK[:num_seen]))
        teachers.append((macs, student.logits_BK.detach().softmax(dim=1)))
