"""Which sub-networks one step trains, on which images and with which targets."""

import importlib
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch.nn import functional as F

from nas.errors import UserError
from nas.supernet import Supernet
from nas.training.options import TrainOptions
from search_spaces import unknown_name


class Strategy(ABC):
    """One step's sub-networks. Constructors take the training options."""

    def __init__(self, options: TrainOptions):
        self.options = options

    @abstractmethod
    def step(
        self, supernet: Supernet, x_BCHW: torch.Tensor, labels_B: torch.Tensor, *, done: float, rng: np.random.Generator
    ) -> torch.Tensor:
        """Add the step's gradients to the supernet's and return the loss to report, a scalar without graph.

        Images are normalised; labels are class indices; `done` is the share of all steps that are finished. All chance
        comes from `rng`.
        """


class Sandwich(Strategy):
    """The largest network learns the labels; the smallest and random ones learn its outputs (BigNAS, Yu et al. 2020).

    The distillation is in place: the largest network's outputs of the same step, without gradient.
    """

    def step(
        self, supernet: Supernet, x_BCHW: torch.Tensor, labels_B: torch.Tensor, *, done: float, rng: np.random.Generator
    ) -> torch.Tensor:
        space, options = supernet.space, self.options
        largest = supernet.subnet(space.largest())
        logits_BK = largest(x_BCHW)
        loss = F.cross_entropy(logits_BK, labels_B)
        loss.backward()
        supernet.scatter(largest)

        if done < options.students_from_pct / 100:
            return loss.detach()
        targets_BK = logits_BK.detach().softmax(dim=1)
        num_random = max(2, round(len(x_BCHW) * options.random_share_pct / 100))
        students = [(space.smallest(), len(x_BCHW))]
        students += [(space.sample(rng), num_random) for _ in range(options.num_random)]
        for architecture, num_images in students:
            student = supernet.subnet(architecture)
            F.cross_entropy(student(x_BCHW[:num_images]), targets_BK[:num_images]).backward()
            supernet.scatter(student)
        return loss.detach()


STRATEGIES: dict[str, type[Strategy]] = {"sandwich": Sandwich}


def get_strategy(options: TrainOptions) -> Strategy:
    """The strategy that the options name; UserError when there is none."""
    name = options.strategy
    if name in STRATEGIES:
        return STRATEGIES[name](options)
    module, separator, attribute = name.partition(":")
    if not separator:
        raise UserError(unknown_name("strategy", name, STRATEGIES))
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"strategy '{name}' can't be imported ({error}); write it as `package.module:Class`") from None
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise UserError(f"strategy '{name}' is not a nas.training.Strategy; make it a subclass")
    return found(options)
