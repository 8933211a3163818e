"""Every kind of block: its deployed form, the shapes it promises, and how its weights are shared."""

import copy

import pytest
import torch

from search_spaces import BlockSpec, Network, SpaceError, build_network, hybrid_tiny
from search_spaces.blocks import BLOCKS, Block, Port, WeightMap, block_class
from search_spaces.blocks.attention import LinearAttention
from tests.search_spaces.block_cases import CASES, FEATURES, randomize

cases = pytest.mark.parametrize("spec", CASES.values(), ids=CASES)


def test_every_kind_has_a_case() -> None:
    assert {spec.kind for spec in CASES.values()} == set(BLOCKS)


@cases
@torch.no_grad()
def test_deployed_block_computes_the_same(spec: BlockSpec) -> None:
    torch.manual_seed(0)
    block = spec.build().double().eval()
    randomize(block)
    x_BCHW = torch.randn(3, *spec.reads[0].shape, dtype=torch.float64)
    expected = block(x_BCHW)
    deployed = copy.deepcopy(block).deploy().eval()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in deployed.modules())
    torch.testing.assert_close(deployed(x_BCHW), expected, atol=1e-10, rtol=1e-10)


@cases
@torch.no_grad()
def test_block_writes_the_shape_it_promises(spec: BlockSpec) -> None:
    out = spec.build().eval()(torch.zeros(2, *spec.reads[0].shape))
    assert tuple(out.shape) == (2, *spec.writes[0].shape)
    assert len(spec.writes[0].layout) == out.ndim


@cases
def test_specifications_survive_json(spec: BlockSpec) -> None:
    assert BlockSpec.from_json(spec.to_json()) == spec
    assert Port.from_json(spec.reads[0].to_json()) == spec.reads[0]


def test_linear_attention_is_a_weighted_mean_with_relu_similarities() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 1, 5, 4, dtype=torch.float64).unbind()
    expected = torch.zeros_like(v)
    for b in range(2):
        for t in range(5):
            weights = [float(q[b, 0, t].clamp(min=0) @ k[b, 0, s].clamp(min=0)) for s in range(5)]
            total = sum(w * v[b, 0, s] for s, w in enumerate(weights))
            expected[b, 0, t] = total / (sum(weights) + 1e-3)
    torch.testing.assert_close(LinearAttention.mix(q, k, v), expected)


def test_small_kernels_are_the_centre_of_large_ones() -> None:
    shared = torch.arange(7 * 7.0).view(1, 1, 7, 7)
    weight_map = BlockSpec(name="a", kind="conv", args=(("kernel", 3),), reads=(FEATURES,)).build().weight_maps()
    cut = weight_map["depthwise.0.weight"].gather(shared.expand(40, 1, 7, 7))
    assert cut.shape == (32, 1, 3, 3)
    assert cut[0, 0].tolist() == [[16, 17, 18], [23, 24, 25], [30, 31, 32]]


@pytest.mark.parametrize(
    "weight_map", [WeightMap(logical=(3, 2)), WeightMap(logical=(2, 3, 3), central=(1, 2)), WeightMap(logical=(1,))]
)
def test_scatter_is_the_gradient_of_gather(weight_map: WeightMap) -> None:
    torch.manual_seed(0)
    shared = torch.randn([size + 2 for size in weight_map.logical], requires_grad=True)
    gradient = torch.randn(weight_map.logical)
    (weight_map.gather(shared) * gradient).sum().backward()
    scattered = torch.zeros_like(shared)
    weight_map.scatter(gradient, scattered)
    torch.testing.assert_close(scattered, shared.grad)
    weight_map.scatter(gradient, scattered)  # adds up
    torch.testing.assert_close(scattered, 2 * shared.grad)


@cases
def test_training_can_close_the_residual_branch(spec: BlockSpec) -> None:
    torch.manual_seed(0)
    block = spec.build().train()
    if not block.closing_scale:
        return
    torch.nn.init.zeros_(block.get_parameter(block.closing_scale))
    x_BCHW = torch.randn(2, *spec.reads[0].shape)
    torch.testing.assert_close(block(x_BCHW), x_BCHW)


def test_own_blocks_are_named_by_a_dotted_path() -> None:
    assert block_class("search_spaces.blocks.convolution:Conv") is BLOCKS["conv"]
    with pytest.raises(SpaceError, match="unknown block kind 'convv'; available: .*Did you mean conv?"):
        block_class("convv")
    with pytest.raises(SpaceError, match="'search_spaces.blocks.base:Port' is not a Block; name a subclass"):
        block_class("search_spaces.blocks.base:Port")


def test_blocks_that_do_not_fit_are_refused() -> None:
    space = hybrid_tiny()
    specs = space.blocks(space.smallest())
    without = [spec for spec in specs if spec.name != "stage2.downsample"]
    with pytest.raises(SpaceError, match="block 'stage2.block1.token_mixer' reads x:BCHW:32x4x4 but finds .*agree"):
        build_network(without)


@torch.no_grad()
def test_deployed_network_leaves_the_original_alone() -> None:
    torch.manual_seed(0)
    space = hybrid_tiny()
    network = space.build(space.middle()).eval()
    randomize(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    x_BCHW = torch.randn(2, *network.input_shape)
    deployed = network.deploy()
    assert isinstance(deployed, Network)
    assert all(isinstance(block, Block) for block in network.blocks)
    torch.testing.assert_close(deployed(x_BCHW), network(x_BCHW), atol=1e-5, rtol=1e-4)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
