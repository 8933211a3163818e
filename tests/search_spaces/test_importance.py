"""Sorting channels changes no output and puts the channels with the largest weights first."""

import numpy as np
import pytest
import torch
from torch import nn

from search_spaces import Network, hybrid_tiny
from search_spaces.importance import sort_channels

SPACE = hybrid_tiny(num_channels=1)


def random_network(seed: int) -> Network:
    """An eval-mode network whose norms have statistics, and scales that are not all one."""
    torch.manual_seed(seed)
    network = SPACE.build(SPACE.sample(np.random.default_rng(seed)))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                nn.init.normal_(tensor)
            for tensor in (module.running_var, module.weight):
                nn.init.uniform_(tensor, 0.5, 2)
    return network.eval()


@pytest.mark.parametrize("seed", range(12))
@torch.no_grad()
def test_outputs_stay_and_weights_move(seed: int) -> None:
    network = random_network(seed)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    moved = sort_channels(network)
    x_BCHW = torch.randn(4, 1, 32, 32)
    torch.testing.assert_close(moved(x_BCHW), network(x_BCHW), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    changed = [name for name, tensor in moved.state_dict().items() if not torch.equal(tensor, before[name])]
    assert {name.split(".")[1] for name in changed} == {str(i) for i in range(len(network.specs))}


def test_hidden_channels_of_every_mlp_are_in_order_of_their_norm() -> None:
    network = sort_channels(random_network(3))
    seen = 0
    for spec, block in zip(network.specs, network.blocks, strict=True):
        if spec.kind == "mlp":
            expand, reduce = (layer.conv.weight.detach().abs() for layer in (block.expand, block.reduce))
            norms = expand.sum(dim=(1, 2, 3)) + reduce.sum(dim=(0, 2, 3))
            assert (norms.diff() <= 1e-6).all()
            seen += 1
    assert seen
