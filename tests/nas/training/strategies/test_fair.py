"""Strict fairness."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nas.training import TrainOptions
from nas.training.strategies import Fair
from nas.training.strategies.fair import fair_architectures
from search_spaces import Architecture, Genotype
from tests.nas.training.strategies.contract import (
    StrategyContract,
    contract_space,
    make_batch,
    make_supernet,
    take_step,
    trained_by,
)


class TestFair(StrategyContract):
    strategy_class = Fair


@pytest.mark.parametrize("seed", range(5))
def test_every_value_of_every_gene_is_used_equally_often(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    space = contract_space()
    drawn: list[Genotype] = []

    def spied(genotype: Genotype) -> Architecture:
        drawn.append(genotype)
        return Architecture(space=space.name, genes=())

    monkeypatch.setattr(space, "architecture", spied)
    fair_architectures(space, np.random.default_rng(seed))
    assert len(drawn) == 6  # kinds of token mixers
    for choice in space.choices:
        counts = Counter(genotype[choice.name] for genotype in drawn)
        assert set(counts) == set(choice.values)
        assert max(counts.values()) - min(counts.values()) == (0 if 6 % len(choice.values) == 0 else 1)


def test_values_are_combined_differently_in_every_step() -> None:
    space, rng = contract_space(), np.random.default_rng(0)
    steps = [frozenset(fair_architectures(space, rng)) for _ in range(5)]
    assert len(set(steps)) == 5


def test_one_update_follows_the_sum_of_all_networks_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    space, batch = contract_space(), make_batch()
    supernet, reference = make_supernet(space), make_supernet(space)
    trained = trained_by(supernet, monkeypatch)
    loss = take_step(Fair(TrainOptions(), space), supernet, batch)
    losses = []
    for architecture in trained:
        network = reference.subnet(architecture)
        each = F.cross_entropy(network(batch.x_BCHW), batch.targets_BK)
        each.backward()
        losses.append(each.item())
        reference.scatter(network)
    torch.testing.assert_close(supernet.flat_grad, reference.flat_grad, rtol=1e-4, atol=1e-6)
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)
