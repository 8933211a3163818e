"""Stages that learn a teacher's features, each on its own."""

from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from nas.errors import UserError
from nas.supernet import Supernet
from nas.training.distillation import map_distance
from nas.training.options import TrainOptions
from nas.training.strategies.base import Batch, Strategy
from nas.training.strategies.stages import LeadingLinear, Stages
from nas.training.strategies.students import sandwich_students
from nas.training.strategies.teachers import load_teacher, probe, stage_maps
from search_spaces import SearchSpace


class BlockWise(Strategy):
    """Every stage learns the teacher's maps at its depth, supervised block by block (DNA, Li et al. 2020).

    No gradient passes from stage to stage. What a stage writes is projected to the teacher's channels, and the
    teacher's maps are averaged to the stage's size. The head learns the labels from the last stage as it is. Every
    step trains the largest, the smallest and random networks; the loss is the sum over stages and head, mean over them.
    """

    def __init__(self, options: TrainOptions, space: SearchSpace):
        super().__init__(options, space)
        self._stages, self._teacher = Stages(space), load_teacher(options, space, as_stages=True)
        maps = probe(partial(stage_maps, self._teacher, num_stages=len(self._stages.names)), options, space)
        if not all(isinstance(each, torch.Tensor) and each.ndim == 4 for each in maps):
            raise UserError(f"teacher '{options.teacher}' gives no maps; return a list of tensors (B, C, H, W)")
        widths = zip(self._stages.widths.items(), maps, strict=True)
        self._project = nn.ModuleDict({name: LeadingLinear(width, each.shape[1]) for (name, width), each in widths})
        self.heads.add_module("project", self._project)

    def step(self, supernet: Supernet, batch: Batch, *, done: float, rng: np.random.Generator) -> torch.Tensor:
        num_images = len(batch.x_BCHW)
        with torch.no_grad():
            wanted = stage_maps(self._teacher, batch.x_BCHW, len(self._stages.names))
        trained = [(self.space.largest(), num_images)]
        trained += sandwich_students(self.space, self.options, num_images, rng)
        total = torch.zeros((), device=batch.x_BCHW.device)
        for architecture, num_seen in trained:
            x_BCHW, rate = batch.x_BCHW[:num_seen], self.options.drop_path
            staged = self._stages.forward(self, supernet, architecture, x_BCHW, isolated=True, drop_path=rate)
            loss = F.cross_entropy(staged.passed.logits_BK, batch.targets_BK[:num_seen])
            for (name, found_BCHW), wanted_BCHW in zip(staged.features.items(), wanted, strict=True):
                projected_BCHW = self._project[name](found_BCHW.movedim(1, -1)).movedim(-1, 1)
                loss = loss + map_distance(projected_BCHW, wanted_BCHW[:num_seen])
            total += staged.passed.learn(loss)
        return total / len(trained)
