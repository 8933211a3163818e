"""Stages that learn from an ensemble of averaged copies of themselves, without labels."""

import copy

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from nas.errors import UserError
from nas.processes import device
from nas.supernet import Supernet
from nas.training.distillation import feature_distance
from nas.training.options import TrainOptions
from nas.training.strategies.base import Batch, Strategy, draw
from nas.training.strategies.stages import LeadingLinear, Stages
from search_spaces import Architecture, SearchSpace

HIDDEN, PROJECTED = 128, 64
"""Widths inside the heads and of what they compare."""


class Bootstrap(Strategy):
    """Block-wise self-supervised ensemble bootstrapping (BossNAS, Li et al. 2021).

    `num_random` + 2 networks are drawn. Stage by stage, with no gradient between stages, each sees one view of the
    images and predicts what a moving average of the supernet makes of the other view: the mean over all these networks
    of its projected features. Stages see no labels; the head learns them from the last stage as it is. The loss is the
    sum over stages and head, averaged over the networks.
    """

    num_views = 2

    def __init__(self, options: TrainOptions, space: SearchSpace):
        super().__init__(options, space)
        if options.mixup or options.cutmix:
            raise UserError("strategy bootstrap compares two views of one image; set mixup and cutmix to 0")
        self._stages = Stages(space)
        widths = self._stages.widths
        self._project = nn.ModuleDict({name: _head(LeadingLinear(width, HIDDEN)) for name, width in widths.items()})
        self._predict = nn.ModuleDict({name: _head(nn.Linear(PROJECTED, HIDDEN)) for name in widths})
        self.heads.add_module("project", self._project)
        self.heads.add_module("predict", self._predict)
        self._averaged = Supernet(space, entanglement=options.entanglement, device=device())
        self._averaged_project = copy.deepcopy(self._project).to(device()).requires_grad_(False)
        self._num_updates = torch.zeros((), device=device())
        self.memory = {"weights": self._averaged.flat, "num_updates": self._num_updates}
        self.memory |= {f"project.{name}": tensor for name, tensor in self._averaged_project.named_parameters()}

    def step(self, supernet: Supernet, batch: Batch, *, done: float, rng: np.random.Generator) -> torch.Tensor:
        assert batch.view_BCHW is not None
        if not self._num_updates:
            self._average(supernet, decay=0.0)
        paths = [draw(self.space, self.options, rng) for _ in range(self.options.num_random + 2)]
        wanted = self._targets(paths, batch.view_BCHW)
        total = torch.zeros((), device=batch.x_BCHW.device)
        for path in paths:
            rate = self.options.drop_path
            staged = self._stages.forward(self, supernet, path, batch.x_BCHW, isolated=True, drop_path=rate)
            loss = F.cross_entropy(staged.passed.logits_BK, batch.targets_BK)
            for name, found_BCHW in staged.features.items():
                predicted_BD = self._predict[name](self._project[name](found_BCHW.mean(dim=(2, 3))))
                loss = loss + feature_distance(predicted_BD, wanted[name])
            total += staged.passed.learn(loss)
        return total / len(paths)

    def after_update(self, supernet: Supernet) -> None:
        self._num_updates += 1
        num_updates = self._num_updates.item()
        self._average(supernet, decay=min(self.options.ema_decay, (1 + num_updates) / (10 + num_updates)))

    @torch.no_grad()
    def _targets(self, paths: list[Architecture], view_BCHW: torch.Tensor) -> dict[str, torch.Tensor]:
        """Mean projections (B, D) of the averaged weights over the paths, by stage."""
        sums: dict[str, torch.Tensor] = {}
        for path in paths:
            staged = self._stages.forward(self, self._averaged, path, view_BCHW, isolated=True, drop_path=0.0)
            for name, found_BCHW in staged.features.items():
                projected_BD = self._averaged_project[name](found_BCHW.mean(dim=(2, 3)))
                sums[name] = sums[name] + projected_BD if name in sums else projected_BD
        return {name: sum_BD / len(paths) for name, sum_BD in sums.items()}

    @torch.no_grad()
    def _average(self, supernet: Supernet, *, decay: float) -> None:
        averages = [self._averaged.flat, *self._averaged_project.parameters()]
        torch._foreach_lerp_(averages, [supernet.flat, *self._project.parameters()], 1 - decay)


def _head(first: nn.Module) -> nn.Module:
    """From `first`, which writes `HIDDEN` features; norms take statistics from the batch and keep none."""
    norm = nn.BatchNorm1d(HIDDEN, track_running_stats=False)
    return nn.Sequential(first, norm, nn.ReLU(), nn.Linear(HIDDEN, PROJECTED))
