"""The batch is divided among sub-networks."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nas.training import TrainOptions
from nas.training.strategies import MultiArchitecture
from tests.nas.training.strategies.contract import (
    StrategyContract,
    contract_space,
    make_batch,
    make_supernet,
    take_step,
    trained_by,
)


class TestMultiArchitecture(StrategyContract):
    strategy_class = MultiArchitecture


def test_gradient_is_that_of_the_mean_loss_over_images_each_seen_by_one_network() -> None:
    space, batch = contract_space(), make_batch(8)
    supernet, reference = make_supernet(space), make_supernet(space)
    loss = take_step(MultiArchitecture(TrainOptions(num_random=1), space), supernet, batch, seed=2)
    random = space.sample(np.random.default_rng(2))
    total = 0.0
    for architecture, part in ((space.largest(), range(3)), (space.smallest(), range(3, 6)), (random, range(6, 8))):
        network = reference.subnet(architecture)
        each_B = F.cross_entropy(network(batch.x_BCHW[list(part)]), batch.targets_BK[list(part)], reduction="none")
        (each_B.sum() / 8).backward()
        total += each_B.sum().item() / 8
        reference.scatter(network)
    torch.testing.assert_close(supernet.flat_grad, reference.flat_grad, rtol=1e-4, atol=1e-6)
    assert loss == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(("num_images", "num_networks"), [(2, 1), (3, 1), (5, 2), (8, 4), (24, 7)])
def test_every_network_gets_two_images_or_stays_out(
    num_images: int, num_networks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = contract_space()
    supernet = make_supernet(space)
    trained = trained_by(supernet, monkeypatch)
    take_step(MultiArchitecture(TrainOptions(num_random=5), space), supernet, make_batch(num_images))
    assert len(trained) == num_networks
    assert trained[:2] == [space.largest(), space.smallest()][:num_networks]
