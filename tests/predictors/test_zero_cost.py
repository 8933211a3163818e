"""Scores of untrained networks against their definitions, written out for networks of two layers."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from predictors.zero_cost import SCORES, get_score, grad_norm, naswot, score, synflow
from search_spaces import SpaceError
from search_spaces.hybrid import hybrid_tiny
from tests.tiny_space import tiny

SPACE = tiny()
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(8, 1, 32, 32, generator=GENERATOR)
LABELS = torch.randint(4, (8,), generator=GENERATOR)
SMALL = torch.randn(6, 1, 2, 2, generator=GENERATOR)
CLASSES = torch.tensor([0, 1, 2, 0, 1, 2])


def mlp(activation: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5), activation or nn.ReLU(), nn.Linear(5, 3)
    ).double()


@pytest.mark.parametrize("name", SCORES)
def test_equal_seeds_give_equal_scores_and_leave_torch_as_it_was(name: str) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    scores = [score(name, SPACE, SPACE.largest(), IMAGES, LABELS, seed=seed) for seed in (1, 1, 2)]
    assert torch.rand(1) == expected
    assert scores[0] == scores[1]
    assert math.isfinite(scores[0])
    assert (scores[0] == scores[2]) == (name == "entropy")


@pytest.mark.parametrize("name", SCORES)
def test_a_score_leaves_the_network_as_it_is(name: str) -> None:
    network = SPACE.build(SPACE.middle())
    before = copy.deepcopy(network.state_dict())
    get_score(name)(network, IMAGES, LABELS)
    after = network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_synflow_of_linear_layers_is_the_flow_through_each_of_them() -> None:
    network = mlp()
    first, second = network[1].weight.abs(), network[4].weight.abs()
    scale = 1 / math.sqrt(1 + network[2].eps)
    flow = scale * (second @ first).sum().item()  # what a layer's weights times their gradients add up to, for each
    assert synflow(network, SMALL, CLASSES) == pytest.approx(math.log(2 * flow))


def test_synflow_of_a_gated_block_is_linear_in_its_input() -> None:
    """Products of activations would square the flow in every gated block, and overflow in deep networks."""
    space = hybrid_tiny()
    largest = space.largest().genotype
    flows = []
    for kind in ("gated2", "mlp2"):
        genotype = {name: kind if "channel_mixer" in name else value for name, value in largest.items()}
        flows.append(score("synflow", space, space.architecture(genotype), torch.ones(1, 3, 32, 32), LABELS, seed=0))
    assert abs(flows[0] - flows[1]) < 1


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU(inplace=True), nn.GELU(), nn.Hardswish(), nn.SiLU()])
def test_naswot_counts_the_bits_in_which_codes_agree(activation: nn.Module) -> None:
    network = mlp(activation)
    hidden = copy.deepcopy(network[:3]).train()(SMALL.double()) > 0
    kernel = torch.tensor([[(a == b).sum().item() for b in hidden] for a in hidden], dtype=torch.float64)
    expected = torch.linalg.slogdet(kernel).logabsdet.item()
    assert naswot(network, SMALL.double(), CLASSES) == pytest.approx(expected)


def test_naswot_of_equal_images_is_minus_infinity() -> None:
    assert naswot(mlp(), SMALL[:1].double().repeat(6, 1, 1, 1), CLASSES) == -math.inf


def test_naswot_sees_activations_that_blocks_call_as_functions() -> None:
    network = SPACE.build(SPACE.smallest())
    assert not any(isinstance(module, nn.ReLU) for module in network.modules())
    assert math.isfinite(naswot(network, IMAGES, LABELS))


def test_grad_norm_is_the_sum_of_norms_that_backward_leaves() -> None:
    network = mlp()
    expected = copy.deepcopy(network).train()
    F.cross_entropy(expected(SMALL.double()), CLASSES).backward()
    norms = expected[1].weight.grad.norm() + expected[4].weight.grad.norm()
    assert grad_norm(network, SMALL.double(), CLASSES) == pytest.approx(norms.item())


def test_a_score_of_ones_own_is_a_dotted_path() -> None:
    assert get_score("predictors.zero_cost:naswot") is naswot


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("naswott", "unknown score 'naswott'; available: entropy, grad_norm, naswot, synflow. Did you mean naswot?"),
        ("predictors.zero_cost:none", "score 'predictors.zero_cost:none' can't be imported"),
    ],
)
def test_an_unknown_score_is_told_in_one_line(name: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message.replace("?", "\\?")):
        get_score(name)
