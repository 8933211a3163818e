"""Gradients of attention give way to those of convolutions."""

import numpy as np
import pytest
import torch

from nas.errors import UserError
from nas.supernet import Supernet
from nas.training import TrainOptions
from nas.training.strategies import ConflictFree
from nas.training.strategies.conflict_free import remove_conflict, sample_attention, sample_convolution
from search_spaces import Architecture
from search_spaces.fixed import FixedSpace
from tests.nas.training.strategies.contract import (
    StrategyContract,
    contract_space,
    make_batch,
    make_supernet,
    take_step,
    trained_by,
)


class TestConflictFree(StrategyContract):
    strategy_class = ConflictFree


def has_attention(architecture: Architecture) -> bool:
    return any("attention" in spec.kind for spec in contract_space().blocks(architecture))


def test_one_side_never_has_attention_and_the_other_always() -> None:
    space, rng = contract_space(), np.random.default_rng(0)
    plain = {sample_convolution(space, rng) for _ in range(50)}
    attentive = {sample_attention(space, rng) for _ in range(50)}
    assert not any(map(has_attention, plain))
    assert all(map(has_attention, attentive))
    assert len(plain) > 40
    assert len(attentive) > 40


def test_conflict_is_removed_and_agreement_left_alone() -> None:
    other = torch.tensor([1.0, 0.0, 2.0])
    against, along = torch.tensor([-3.0, 5.0, 0.5]), torch.tensor([3.0, 5.0, 0.5])
    remove_conflict(against, other)
    torch.testing.assert_close(against, torch.tensor([-2.6, 5.0, 1.3]))
    assert (against @ other).abs() < 1e-6
    remove_conflict(along, other)
    assert along.tolist() == [3.0, 5.0, 0.5]


def student_gradient(supernet: Supernet, architecture: Architecture, num_seen: int) -> torch.Tensor:
    """Gradient of one student of the largest network, alone."""
    space, batch = supernet.space, make_batch()
    soft_BK = supernet.subnet(space.largest())(batch.x_BCHW).detach().softmax(dim=1)
    supernet.zero_grad()
    network = supernet.subnet(architecture)
    logits_BK = network(batch.x_BCHW[:num_seen])
    torch.nn.functional.cross_entropy(logits_BK, soft_BK[:num_seen]).backward()
    supernet.scatter(network)
    return supernet.flat_grad.clone()


def test_step_is_the_sum_of_both_sides_with_the_projection_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    space, batch, conflicts = contract_space(), make_batch(), set()
    for seed in range(12):
        supernet, reference = make_supernet(space, seed=seed), make_supernet(space, seed=seed)
        trained = trained_by(supernet, monkeypatch)
        take_step(ConflictFree(TrainOptions(students_from_pct=0), space), supernet, batch, seed=seed)
        assert [has_attention(each) for each in trained[1:]] == [False, False, True]
        attention = student_gradient(reference, trained[3], 4)
        convolution = student_gradient(reference, space.smallest(), 8) + student_gradient(reference, trained[2], 4)
        product = torch.dot(attention, convolution)
        if product < 0:
            attention = attention - product / convolution.norm() ** 2 * convolution
        reference.zero_grad()
        network = reference.subnet(space.largest())
        torch.nn.functional.cross_entropy(network(batch.x_BCHW), batch.targets_BK).backward()
        reference.scatter(network)
        expected = reference.flat_grad + convolution + attention
        torch.testing.assert_close(supernet.flat_grad, expected, rtol=1e-3, atol=1e-5)
        conflicts.add(bool(product < 0))
    assert conflicts == {True, False}


def test_space_without_a_choice_of_attention_is_refused() -> None:
    space = FixedSpace(contract_space(), contract_space().largest())
    with pytest.raises(UserError, match="contract has none, train it with the sandwich strategy"):
        ConflictFree(TrainOptions(), space)
