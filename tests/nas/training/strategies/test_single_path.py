"""One sub-network a step."""

import numpy as np
import pytest

from nas.training import TrainOptions
from nas.training.strategies import SinglePath
from tests.nas.training.strategies.contract import (
    StrategyContract,
    contract_space,
    make_batch,
    make_supernet,
    take_step,
    trained_by,
)


class TestSinglePath(StrategyContract):
    strategy_class = SinglePath


def test_one_uniformly_drawn_network_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    space = contract_space()
    supernet = make_supernet(space)
    trained = trained_by(supernet, monkeypatch)
    take_step(SinglePath(TrainOptions(), space), supernet, make_batch(), seed=5)
    assert trained == [space.sample(np.random.default_rng(5))]
