"""The space opens gene by gene."""

import numpy as np
import pytest

from nas.training import TrainOptions
from nas.training.strategies import ProgressiveShrinking
from search_spaces.fixed import FixedSpace
from tests.nas.training.strategies.contract import (
    StrategyContract,
    contract_space,
    make_batch,
    make_supernet,
    take_step,
    trained_by,
)


class TestProgressiveShrinking(StrategyContract):
    strategy_class = ProgressiveShrinking


def free_genes(done: float) -> set[str]:
    """Kinds of genes that differ from the largest network's in some of many samples with all blocks switched on."""
    space = contract_space()
    strategy = ProgressiveShrinking(TrainOptions(students_from_pct=40), space)
    rng, found, largest = np.random.default_rng(0), set(), space.largest().genotype
    for _ in range(40):
        genotype = strategy.sample(done, rng).genotype
        off = {f"stage{s}.block2" for s in (1, 2) if genotype[f"stage{s}.depth"] == 1}
        differing = [name for name in genotype if genotype[name] != largest[name]]
        found |= {name.split(".")[-1] for name in differing if name.rpartition(".")[0] not in off}
    return found


@pytest.mark.parametrize(
    ("done", "free"),
    [
        (0.0, set()),
        (0.39, set()),
        (0.41, {"depth"}),
        (0.59, {"depth"}),
        (0.61, {"depth", "width"}),
        (0.79, {"depth", "width"}),
        (0.81, {"depth", "width", "token_mixer", "channel_mixer"}),
        (1.0, {"depth", "width", "token_mixer", "channel_mixer"}),
    ],
)
def test_depths_then_widths_then_all_else_are_set_free(done: float, free: set[str]) -> None:
    assert free_genes(done) == free


def test_largest_network_is_trained_alone_first_and_with_students_then(monkeypatch: pytest.MonkeyPatch) -> None:
    space, supernet = contract_space(), make_supernet(contract_space())
    strategy = ProgressiveShrinking(TrainOptions(students_from_pct=40, num_random=2), space)
    trained = trained_by(supernet, monkeypatch)
    take_step(strategy, supernet, make_batch(), done=0.2)
    assert trained == [space.largest()]
    take_step(strategy, supernet, make_batch(), done=0.5)
    assert trained[1] == space.largest()
    assert len(trained) == 5


def test_space_of_one_network_has_nothing_to_open() -> None:
    space = FixedSpace(contract_space(), contract_space().largest())
    strategy = ProgressiveShrinking(TrainOptions(), space)
    assert strategy.sample(1.0, np.random.default_rng(0)) == space.largest()
