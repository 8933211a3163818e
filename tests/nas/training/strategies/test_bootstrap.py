"""Stages learn from an ensemble of averaged copies of themselves."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas.data import ImageData
from nas.errors import UserError
from nas.supernet import Supernet
from nas.training import TrainOptions, train_supernet
from nas.training.strategies import Bootstrap
from search_spaces import Architecture
from tests.nas.training.runs import OPTIONS, StopAt, StoppedError, small_space
from tests.nas.training.strategies.contract import (
    StrategyContract,
    contract_space,
    make_batch,
    make_supernet,
    take_step,
)


class TestBootstrap(StrategyContract):
    strategy_class = Bootstrap
    learns_labels = False


def stage_features(supernet: Supernet, architecture: Architecture, x_BCHW: torch.Tensor) -> list[torch.Tensor]:
    """Pooled features of both stages, and logits; no gradient passes between them."""
    network, found = supernet.subnet(architecture), []
    parts = [spec.name.partition(".")[0].replace("stem", "stage1") for spec in network.specs]
    for stage in ("stage1", "stage2"):
        for part, block in zip(parts, network.blocks, strict=True):
            x_BCHW = block(x_BCHW) if part == stage else x_BCHW
        found.append(x_BCHW.mean(dim=(2, 3)))
        x_BCHW = x_BCHW.detach()
    return [*found, network.blocks[-1](x_BCHW)]


def test_every_stage_regresses_to_the_mean_projection_of_all_paths_on_the_other_view() -> None:
    space, batch = contract_space(), make_batch()
    supernet, reference = make_supernet(space), make_supernet(space)
    strategy = Bootstrap(TrainOptions(num_random=1), space)
    loss = take_step(strategy, supernet, batch, seed=6)
    rng = np.random.default_rng(6)
    paths = [space.sample(rng) for _ in range(3)]
    heads = [[strategy.heads.get_submodule(f"{kind}.stage{s}") for s in (1, 2)] for kind in ("project", "predict")]
    project, predict = heads
    assert batch.view_BCHW is not None
    with torch.no_grad():
        teachers = [stage_features(reference, path, batch.view_BCHW) for path in paths]
        wanted = [torch.stack([project[s](each[s]) for each in teachers]).mean(dim=0) for s in (0, 1)]
    losses = []
    for path in paths:
        *features, logits_BK = stage_features(reference, path, batch.x_BCHW)
        total = F.cross_entropy(logits_BK, batch.targets_BK)
        for s in (0, 1):
            predicted_BD = predict[s](project[s](features[s]))
            total = total + (F.normalize(predicted_BD) - F.normalize(wanted[s])).square().sum(dim=1).mean()
        total.backward()
        reference.scatter(reference.subnet(path))
        losses.append(total.item())
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)
    torch.testing.assert_close(supernet.flat_grad, reference.flat_grad, rtol=1e-3, atol=1e-5)


def test_memory_starts_as_the_supernet_and_follows_it_slowly() -> None:
    space = contract_space()
    supernet = make_supernet(space)
    strategy = Bootstrap(TrainOptions(ema_decay=0.9), space)
    take_step(strategy, supernet, make_batch())
    before = supernet.flat.clone()
    assert torch.equal(strategy.memory["weights"], before)
    expected = before.clone()
    for update in range(1, 4):
        with torch.no_grad():
            supernet.flat += 1
        strategy.after_update(supernet)
        decay = min(0.9, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * supernet.flat
        take_step(strategy, supernet, make_batch())
    torch.testing.assert_close(strategy.memory["weights"], expected)
    assert strategy.memory["num_updates"] == 3


def perturbed(strategy: Bootstrap) -> Bootstrap:
    """As after a while of training: heads and memory have moved apart."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in [*strategy.heads.parameters(), *strategy.memory.values()]:
            tensor += torch.rand(tensor.shape, generator=generator)
    return strategy


def test_heads_and_memory_are_all_that_a_continued_run_needs() -> None:
    space, gradients = contract_space(), []
    first = perturbed(Bootstrap(TrainOptions(), space))
    second = Bootstrap(TrainOptions(), space)
    second.heads.load_state_dict(copy.deepcopy(first.heads.state_dict()))
    for name, tensor in second.memory.items():
        tensor.copy_(first.memory[name])
    for strategy in (first, second):
        supernet = make_supernet(space)
        take_step(strategy, supernet, make_batch())
        gradients.append(supernet.flat_grad)
    assert torch.equal(*gradients)


def test_killed_run_continues_with_the_heads_and_memory_it_had(tmp_path: Path, tiny_data: ImageData) -> None:
    options = replace(OPTIONS, strategy="bootstrap", num_epochs=1, num_watched=0)
    whole = train_supernet(small_space(), tiny_data, tmp_path / "whole", options=options)
    with pytest.raises(StoppedError):
        train_supernet(small_space(), tiny_data, tmp_path / "killed", options=options, progress=StopAt(4))
    continued = train_supernet(small_space(), tiny_data, tmp_path / "killed", options=options)
    assert torch.equal(continued.flat, whole.flat)


def test_heads_have_no_state_but_parameters() -> None:
    strategy = Bootstrap(TrainOptions(), contract_space())
    assert isinstance(strategy.heads, nn.Module)
    assert not list(strategy.heads.buffers())
    assert list(strategy.heads.parameters())


@pytest.mark.parametrize("option", ["mixup", "cutmix"])
def test_mixed_images_are_refused(option: str) -> None:
    with pytest.raises(UserError, match="compares two views of one image; set mixup and cutmix to 0"):
        Bootstrap(replace(TrainOptions(), **{option: 0.2}), contract_space())
