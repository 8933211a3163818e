"""The sandwich rule: who learns what, on which images."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nas.training import TrainOptions
from nas.training.distillation import DIVERGENCES, alpha_divergence
from nas.training.strategies import Sandwich
from search_spaces import SearchSpace
from search_spaces.cost import network_cost
from tests.nas.training.strategies.contract import (
    StrategyContract,
    contract_space,
    make_batch,
    make_supernet,
    take_step,
    trained_by,
)


class TestSandwich(StrategyContract):
    strategy_class = Sandwich


class TestSandwichWithAlphaDivergenceAndLargerTeachers(StrategyContract):
    strategy_class = Sandwich
    options = {"divergence": "alpha", "soft_targets": "larger", "num_random": 2}  # noqa: RUF012


def sandwich_reference(space: SearchSpace, options: TrainOptions, seed: int) -> torch.Tensor:
    """Gradient of one step, network by network."""
    supernet, batch, rng = make_supernet(space), make_batch(), np.random.default_rng(seed)
    randoms = [space.sample(rng) for _ in range(options.num_random)]
    network = supernet.subnet(space.largest())
    logits_BK = network(batch.x_BCHW)
    F.cross_entropy(logits_BK, batch.targets_BK).backward()
    supernet.scatter(network)
    soft_BK = logits_BK.detach().softmax(dim=1)
    for architecture, num_seen in [(space.smallest(), 8), *((each, 4) for each in randoms)]:
        network = supernet.subnet(architecture)
        log_q_BK = network(batch.x_BCHW[:num_seen]).log_softmax(dim=1)
        (soft_BK[:num_seen] * (soft_BK[:num_seen].log() - log_q_BK)).sum(dim=1).mean().backward()
        supernet.scatter(network)
    return supernet.flat_grad


def test_students_follow_the_kl_divergence_from_the_largest_network() -> None:
    space, options = contract_space(), TrainOptions(students_from_pct=0, num_random=2)
    supernet = make_supernet(space)
    take_step(Sandwich(options, space), supernet, make_batch(), seed=3)
    torch.testing.assert_close(supernet.flat_grad, sandwich_reference(space, options, 3), rtol=1e-4, atol=1e-6)


def test_largest_network_is_alone_before_students_start(monkeypatch: pytest.MonkeyPatch) -> None:
    space = contract_space()
    supernet = make_supernet(space)
    trained = trained_by(supernet, monkeypatch)
    take_step(Sandwich(TrainOptions(students_from_pct=40), space), supernet, make_batch(), done=0.39)
    assert trained == [space.largest()]


def test_students_of_larger_networks_are_trained_in_the_order_of_their_macs(monkeypatch: pytest.MonkeyPatch) -> None:
    space, orders = contract_space(), []
    for seed in range(3):
        supernet = make_supernet(space)
        trained = trained_by(supernet, monkeypatch)
        options = TrainOptions(students_from_pct=0, soft_targets="larger", num_random=4)
        take_step(Sandwich(options, space), supernet, make_batch(), seed=seed)
        orders.append([network_cost(space.blocks(each)).macs for each in trained[1:]])
    assert all(len(macs) == 5 for macs in orders)
    assert all(macs == sorted(macs, reverse=True) for macs in orders)


def test_student_learns_any_larger_network_and_never_a_smaller_one(monkeypatch: pytest.MonkeyPatch) -> None:
    space, seen = contract_space(), []
    teachers: set[int] = set()

    def spied(logits_BK: torch.Tensor, soft_BK: torch.Tensor) -> torch.Tensor:
        seen.append((logits_BK.detach().softmax(dim=1), soft_BK))
        return F.cross_entropy(logits_BK, soft_BK)

    monkeypatch.setitem(DIVERGENCES, "kl", spied)
    options = TrainOptions(students_from_pct=0, soft_targets="larger", num_random=1, random_share_pct=100)
    for seed in range(8):
        seen.clear()
        supernet, batch = make_supernet(space), make_batch()
        take_step(Sandwich(options, space), supernet, batch, seed=seed)
        largest_BK = supernet.subnet(space.largest())(batch.x_BCHW).detach().softmax(dim=1)
        (random_BK, random_target_BK), (_, smallest_target_BK) = seen
        torch.testing.assert_close(random_target_BK, largest_BK)
        matches = [torch.allclose(smallest_target_BK, soft_BK) for soft_BK in (largest_BK, random_BK)]
        assert sum(matches) == 1
        teachers.add(matches.index(True))
    assert teachers == {0, 1}


def alpha_value(logits_K: torch.Tensor, p_K: torch.Tensor, alpha: float) -> torch.Tensor:
    q_K = logits_K.softmax(dim=0)
    return (q_K * ((p_K / q_K) ** alpha - 1)).sum() / (alpha * (alpha - 1))


def test_alpha_divergence_is_the_larger_of_two_where_nothing_is_clipped() -> None:
    torch.manual_seed(0)
    logits_BK = torch.randn(64, 5, dtype=torch.float64, requires_grad=True)
    soft_BK = (torch.randn(64, 5, dtype=torch.float64) + logits_BK.detach()).mul(0.7).softmax(dim=1)
    ratios_BK = logits_BK.detach().softmax(dim=1) / soft_BK
    mild = (ratios_BK < 5).all(dim=1).nonzero().flatten().tolist()
    values = [[alpha_value(logits_BK[b], soft_BK[b], alpha) for alpha in (-1, 1 + 1e-7)] for b in mild]
    assert {int(above > below) for below, above in values} == {0, 1}
    expected = torch.stack([torch.maximum(*pair) for pair in values]).mean()
    (expected_grad,) = torch.autograd.grad(expected, logits_BK)
    found = alpha_divergence(logits_BK[mild], soft_BK[mild])
    (found_grad,) = torch.autograd.grad(found, logits_BK)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found_grad, expected_grad, rtol=1e-5, atol=1e-6)


def test_alpha_divergence_of_a_student_that_is_sure_of_the_wrong_class_is_clipped() -> None:
    logits_BK = torch.tensor([[40.0, 0.0, 0.0]], requires_grad=True)
    soft_BK = torch.tensor([[1e-30, 0.5, 0.5]])
    loss = alpha_divergence(logits_BK, soft_BK)
    loss.backward()
    assert logits_BK.grad is not None
    assert logits_BK.grad.isfinite().all()
    assert logits_BK.grad.abs().max() <= 5
    assert loss.isfinite()
