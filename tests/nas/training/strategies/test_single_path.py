"""One sub-network a step."""

import numpy as np
import pytest

from nas.training import TrainOptions
from nas.training.strategies import SinglePath
from nas.training.strategies.base import draw
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


def test_a_size_bias_draws_large_values_more_often() -> None:
    space, rng = contract_space(), np.random.default_rng(0)
    even, biased = (
        np.array([space.encode(draw(space, TrainOptions(size_bias=bias), rng)) for _ in range(2000)])
        for bias in (0.0, 0.5)
    )
    for place, choice in enumerate(space.choices):
        if "block" not in choice.name and len(choice.values) > 1:  # others are 0 where there is no block
            num_values = len(choice.values)
            shares = np.diff((np.arange(num_values + 1) / num_values) ** 2)  # u^(1/2) < x with probability x^2
            assert np.bincount(biased[:, place], minlength=num_values) / 2000 == pytest.approx(shares, abs=0.04)
            assert np.bincount(even[:, place], minlength=num_values) / 2000 == pytest.approx(1 / num_values, abs=0.04)
