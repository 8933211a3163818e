"""The sandwich rule with a teacher from outside."""

from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from nas.supernet import Supernet
from nas.training.distillation import feature_distance
from nas.training.options import TrainOptions
from nas.training.strategies.base import Batch, Passed, Strategy
from nas.training.strategies.stages import LeadingLinear, Stages
from nas.training.strategies.students import distil, sandwich_students
from nas.training.strategies.teachers import check_logits, load_teacher, pooled_features, probe
from search_spaces import SearchSpace


class Teacher(Strategy):
    """The largest network learns a frozen teacher's outputs along with the labels (Hinton et al. 2015).

    Its students learn in place, as in the sandwich. With `teacher_features`, the largest network's mean features,
    linearly projected, also follow those of the teacher: families of networks that share no layers are aligned in the
    teacher's space (in the sense of ScaleKD, Fan et al. 2024).
    """

    def __init__(self, options: TrainOptions, space: SearchSpace):
        super().__init__(options, space)
        self._teacher = load_teacher(options, space)
        check_logits(self._teacher, options, space)
        if options.teacher_features:
            self._stages = Stages(space)
            num_features = probe(partial(pooled_features, self._teacher), options, space).shape[1]
            self._project = LeadingLinear(self._stages.widths[self._stages.names[-1]], num_features)
            self.heads.add_module("project", self._project)

    def step(self, supernet: Supernet, batch: Batch, *, done: float, rng: np.random.Generator) -> torch.Tensor:
        weight, x_BCHW = self.options.teacher_weight, batch.x_BCHW
        taught = self._taught_with_features if self.options.teacher_features else self._taught
        largest, distance = taught(supernet, x_BCHW)
        labels = F.cross_entropy(largest.logits_BK, batch.targets_BK)
        loss = largest.learn((1 - weight) * labels + weight * distance)
        if done >= self.options.students_from_pct / 100:
            students = sandwich_students(self.space, self.options, len(x_BCHW), rng)
            distil(self, supernet, x_BCHW, largest, students, rng)
        return loss

    def _taught(self, supernet: Supernet, x_BCHW: torch.Tensor) -> tuple[Passed, torch.Tensor]:
        """The largest network after its pass, and how far it is from the teacher."""
        largest = self.forward(supernet, self.space.largest(), x_BCHW)
        return largest, self._logit_distance(largest, x_BCHW)

    def _taught_with_features(self, supernet: Supernet, x_BCHW: torch.Tensor) -> tuple[Passed, torch.Tensor]:
        rate = self.options.drop_path
        staged = self._stages.forward(self, supernet, self.space.largest(), x_BCHW, isolated=False, drop_path=rate)
        *_, last_BCHW = staged.features.values()
        with torch.no_grad():
            wanted_BD = pooled_features(self._teacher, x_BCHW)
        distance = feature_distance(self._project(last_BCHW.mean(dim=(2, 3))), wanted_BD)
        return staged.passed, distance + self._logit_distance(staged.passed, x_BCHW)

    def _logit_distance(self, largest: Passed, x_BCHW: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            soft_BK = self._teacher(x_BCHW).softmax(dim=1)
        return F.cross_entropy(largest.logits_BK, soft_BK)
