"""Stages learn a teacher's maps, each on its own."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nas.supernet import Supernet
from nas.training import Strategy, TrainOptions
from nas.training.distillation import map_distance
from nas.training.strategies import BlockWise
from search_spaces import Architecture, SearchSpace
from tests.nas.training.strategies import teachers
from tests.nas.training.strategies.contract import (
    StrategyContract,
    contract_space,
    make_batch,
    make_supernet,
    take_step,
)

HERE = "tests.nas.training.strategies.teachers"


class TestBlockWise(StrategyContract):
    strategy_class = BlockWise
    learns_labels = False

    def make(self, space: SearchSpace, **changes: Any) -> Strategy:
        path = f"{HERE}:{'grey' if space.num_channels == 1 else 'coloured'}_stages"
        return super().make(space, **({"teacher": path} | changes))


def learn_stage_by_stage(supernet: Supernet, architecture: Architecture, heads: torch.nn.Module, seen: int) -> float:
    """One network of a step, the slow way: a backward pass for each stage; returns the sum of losses."""
    batch = make_batch()
    network, x_BCHW, total = supernet.subnet(architecture), batch.x_BCHW[:seen], 0.0
    wanted = teachers.grey_stages().eval()(batch.x_BCHW)
    parts = [spec.name.partition(".")[0].replace("stem", "stage1") for spec in network.specs]
    for stage, wanted_BCHW in zip(("stage1", "stage2"), wanted, strict=True):
        for part, block in zip(parts, network.blocks, strict=True):
            x_BCHW = block(x_BCHW) if part == stage else x_BCHW
        head = heads.get_submodule(f"project.{stage}.full")
        kernel = head.weight[:, : x_BCHW.shape[1], None, None]
        projected_BCHW = F.conv2d(x_BCHW, kernel, head.bias)
        scaled_BCHW = F.adaptive_avg_pool2d(wanted_BCHW.detach()[:seen], projected_BCHW.shape[2:])
        loss = (projected_BCHW - scaled_BCHW).square().mean() / scaled_BCHW.var(correction=0)
        loss.backward()
        total += loss.item()
        x_BCHW = x_BCHW.detach()
    loss = F.cross_entropy(network.blocks[-1](x_BCHW), batch.targets_BK[:seen])
    loss.backward()
    supernet.scatter(network)
    return total + loss.item()


def test_step_is_a_backward_pass_for_each_stage_of_each_network() -> None:
    space = contract_space()
    supernet, reference = make_supernet(space), make_supernet(space)
    strategy = BlockWise(TrainOptions(teacher=f"{HERE}:grey_stages"), space)
    loss = take_step(strategy, supernet, make_batch(), seed=4)
    found = [parameter.grad for parameter in strategy.heads.parameters()]
    strategy.heads.zero_grad()
    trained = [(space.largest(), 8), (space.smallest(), 8), (space.sample(np.random.default_rng(4)), 4)]
    losses = [learn_stage_by_stage(reference, each, strategy.heads, seen) for each, seen in trained]
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)
    torch.testing.assert_close(supernet.flat_grad, reference.flat_grad, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found, [parameter.grad for parameter in strategy.heads.parameters()])


def test_map_distance_is_relative_to_the_variance_of_the_teachers_maps() -> None:
    wanted_BCHW = torch.randn(4, 3, 8, 8)
    small_BCHW = F.avg_pool2d(wanted_BCHW, 2)
    assert map_distance(small_BCHW, wanted_BCHW) == 0
    assert map_distance(small_BCHW.mean().expand(4, 3, 4, 4), wanted_BCHW).item() == pytest.approx(1)
