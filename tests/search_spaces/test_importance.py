"""Sorting channels changes no output and puts the channels with the largest weights first."""

import numpy as np
import pytest
import torch
from torch import nn

from search_spaces import Network, hybrid_tiny
from search_spaces.blocks import Block, Port
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


def test_channels_of_a_stage_are_in_order_of_their_norm_over_all_blocks() -> None:
    genes = {choice.name: choice.values[0] for choice in SPACE.choices} | {"stage1.block1.token_mixer": "conv3"}
    network = sort_channels(SPACE.build(SPACE.architecture(genes)))
    weights = {name: tensor.abs() for name, tensor in network.named_parameters() if tensor.ndim == 4}
    assert [spec.kind for spec in network.specs[:4]] == ["stem", "conv", "mlp", "downsample"]
    written = ("0.second.0", "1.depthwise.0", "1.pointwise.0", "2.reduce.0")
    read = ("1.pointwise.0", "2.expand.0", "3.conv.0")
    norms_C = sum(weights[f"blocks.{name}.weight"].sum(dim=(1, 2, 3)) for name in written)
    norms_C = norms_C + sum(weights[f"blocks.{name}.weight"].sum(dim=(0, 2, 3)) for name in read)
    assert norms_C.shape == (16,)
    assert (norms_C.diff() <= 1e-5 * norms_C.max()).all()


class Silent(Block):
    """A user's own block that declares no channels."""

    def __init__(self, reads: tuple[Port, ...]):
        super().__init__(reads)
        self.mix = nn.Conv2d(reads[0].shape[0], reads[0].shape[0], 1)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return x_BCHW + self.mix(x_BCHW)

    def deploy(self) -> nn.Module:
        return self


@torch.no_grad()
def test_a_block_that_declares_nothing_keeps_its_stream_in_order() -> None:
    whole = random_network(0)
    blocks = list(whole.blocks)
    blocks[1] = Silent(whole.specs[1].reads)
    network = Network(whole.specs, blocks).eval()
    moved = sort_channels(network)
    x_BCHW = torch.randn(4, 1, 32, 32)
    torch.testing.assert_close(moved(x_BCHW), network(x_BCHW), rtol=1e-5, atol=1e-5)
    assert torch.equal(moved.blocks[1].mix.weight, network.blocks[1].mix.weight)
    last = network.blocks[-1].classify.weight  # of another stage, whose channels may move
    assert not torch.equal(moved.blocks[-1].classify.weight, last)
