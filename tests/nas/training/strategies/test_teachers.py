"""Teachers from outside are frozen, and what can't teach is refused."""

from typing import Any

import pytest
import timm
import torch
from torch import nn

from nas.errors import UserError
from nas.training import TrainOptions
from nas.training.strategies import BlockWise, Teacher
from nas.training.strategies import teachers as teachers_module
from nas.training.strategies.teachers import load_teacher, pooled_features, stage_maps
from tests.nas.training.strategies.contract import contract_space

HERE = "tests.nas.training.strategies.teachers"


def untrained(name: str, *, pretrained: bool, **options: Any) -> nn.Module:
    """timm's model without the download."""
    assert pretrained
    return timm.models.create_model(name, pretrained=False, **options)


def test_a_teacher_is_frozen_and_in_eval_mode() -> None:
    teacher = load_teacher(TrainOptions(teacher=f"{HERE}:grey"), contract_space())
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_timm_gives_logits_features_and_maps_of_any_channel_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers_module.timm, "create_model", untrained)
    options, x_BCHW = TrainOptions(teacher="timm:resnet10t"), torch.randn(2, 1, 64, 64)
    teacher = load_teacher(options, contract_space())
    assert teacher(x_BCHW).shape == (2, 1000)
    expected_BD = teacher.forward_features(x_BCHW).mean(dim=(2, 3))
    torch.testing.assert_close(pooled_features(teacher, x_BCHW), expected_BD)
    maps = stage_maps(load_teacher(options, contract_space(), as_stages=True), x_BCHW, 2)
    assert [tuple(each.shape) for each in maps] == [(2, 128, 8, 8), (2, 512, 2, 2)]


def test_timm_models_with_channels_last_are_refused_as_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers_module.timm, "create_model", untrained)
    with pytest.raises(UserError, match="gives maps with channels last; name one that gives them first"):
        load_teacher(TrainOptions(teacher="timm:swin_tiny_patch4_window7_224"), contract_space(), as_stages=True)


@pytest.mark.parametrize(("num_stages", "chosen"), [(1, [4]), (2, [2, 4]), (3, [1, 3, 4]), (5, [0, 1, 2, 3, 4])])
def test_stages_get_the_maps_at_their_share_of_the_depth(num_stages: int, chosen: list[int]) -> None:
    class Numbers(nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [torch.tensor(index) for index in range(5)]

    assert [int(each) for each in stage_maps(Numbers(), torch.zeros(1), num_stages)] == chosen


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ("", "teacher='' is no teacher, which strategy teacher needs; write it as `timm:<name>`"),
        ("resnet18", "teacher='resnet18' is no teacher"),
        ("timm:nosuchnet", r"teacher 'timm:nosuchnet' can't be loaded \(Unknown model \(nosuchnet\)\); name another"),
        ("tests.nowhere:grey", "can't be imported .*; write it as `package.module:name`"),
        (f"{HERE}:nothing", "can't be imported .*; write it as `package.module:name`"),
        (f"{HERE}:no_module", "gives str; return a torch.nn.Module"),
        (f"{HERE}:coloured", r"can't be used on images of \(1, 16, 16\) \(.*\); name one that takes them"),
        (f"{HERE}:of_ten_classes", r"gives outputs of shape \(2, 10\) for two images, the data has 4 classes; name"),
    ],
)
def test_teachers_that_can_not_teach_are_refused(teacher: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Teacher(TrainOptions(strategy="teacher", teacher=teacher), contract_space())


def test_teacher_without_maps_is_refused_by_block_wise_training() -> None:
    with pytest.raises(UserError, match="gives no maps; return a list of tensors"):
        BlockWise(TrainOptions(strategy="block-wise", teacher=f"{HERE}:grey"), contract_space())


def test_impossible_weight_is_refused() -> None:
    with pytest.raises(UserError, match="teacher_weight=2 is not possible; it must be 0 to 1"):
        Teacher(TrainOptions(teacher=f"{HERE}:grey", teacher_weight=2), contract_space())
