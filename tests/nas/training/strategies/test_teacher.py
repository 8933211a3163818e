"""The sandwich with a teacher from outside."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from nas.training import Strategy, TrainOptions
from nas.training.strategies import Sandwich, Teacher
from search_spaces import SearchSpace
from tests.nas.training.strategies import teachers
from tests.nas.training.strategies.contract import (
    StrategyContract,
    contract_space,
    make_batch,
    make_supernet,
    take_step,
)

HERE = "tests.nas.training.strategies.teachers"


class TestTeacher(StrategyContract):
    strategy_class = Teacher

    def make(self, space: SearchSpace, **changes: Any) -> Strategy:
        path = f"{HERE}:{'grey' if space.num_channels == 1 else 'coloured'}"
        return super().make(space, **({"teacher": path, "teacher_weight": 0.3} | changes))


class TestTeacherWithFeatures(TestTeacher):
    options = {"teacher_features": True}  # noqa: RUF012


@pytest.mark.parametrize("with_features", [False, True])
def test_largest_network_learns_labels_outputs_and_features_in_proportion(with_features: bool) -> None:
    space, batch = contract_space(), make_batch()
    supernet, reference = make_supernet(space), make_supernet(space)
    torch.manual_seed(0)
    options = TrainOptions(teacher=f"{HERE}:grey", teacher_weight=0.3, teacher_features=with_features)
    strategy = Teacher(options, space)
    loss = take_step(strategy, supernet, batch, done=0.0)

    teacher = teachers.grey().eval()
    network = reference.subnet(space.largest())
    features_BCHW = batch.x_BCHW
    for block in list(network.blocks)[:-1]:
        features_BCHW = block(features_BCHW)
    logits_BK = network.blocks[-1](features_BCHW)
    soft_BK = teacher(batch.x_BCHW).detach().softmax(dim=1)
    expected = 0.7 * F.cross_entropy(logits_BK, batch.targets_BK) + 0.3 * F.cross_entropy(logits_BK, soft_BK)
    if with_features:
        weight, bias = (parameter.detach() for parameter in strategy.heads.parameters())
        found_BD = F.normalize(features_BCHW.mean(dim=(2, 3)) @ weight.T + bias)
        wanted_BD = F.normalize(teacher.maps(batch.x_BCHW)[-1].mean(dim=(2, 3)).detach())
        expected = expected + 0.3 * (found_BD - wanted_BD).pow(2).sum(dim=1).mean()
    expected.backward()
    reference.scatter(network)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(supernet.flat_grad, reference.flat_grad, rtol=1e-3, atol=1e-5)


def test_teacher_without_weight_is_the_plain_sandwich() -> None:
    space = contract_space()
    gradients = []
    for strategy_class in (Teacher, Sandwich):
        supernet = make_supernet(space)
        options = TrainOptions(students_from_pct=0, teacher=f"{HERE}:grey", teacher_weight=0)
        take_step(strategy_class(options, space), supernet, make_batch())
        gradients.append(supernet.flat_grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
