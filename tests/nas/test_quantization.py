"""Simulated precisions against plain arithmetic, and policies that can't be."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from nas.calibration import OperatorRange, affine
from nas.errors import CandidateError, UserError
from nas.onnx_model import export_block, export_network, quantize_block
from nas.quantization import DynamicLinear, quantize_blockwise, quantize_weight, simulate
from search_spaces import BlockSpec
from search_spaces.blocks import Port
from search_spaces.precision import PRECISIONS, QuantizationPolicy, uniform_policy
from tests.nas.quantized_networks import deployed, random_candidate, rms
from tests.search_spaces.block_cases import CASES
from tests.tiny_space import tiny

SPACE = tiny()
SPECS = SPACE.blocks(SPACE.largest())


def integers(x: torch.Tensor, scale: float, zero: int) -> torch.Tensor:
    """What unsigned 8-bit integers keep of x."""
    return ((x / scale).round() + zero).clamp(0, 255).sub(zero) * scale


@torch.no_grad()
def test_empty_policy_changes_no_bit() -> None:
    network, ranges, x_BCHW = deployed(SPECS)
    assert torch.equal(simulate(network, QuantizationPolicy(), ranges)(x_BCHW), network(x_BCHW))


@torch.no_grad()
@pytest.mark.parametrize("bits", [7, 8])
@pytest.mark.parametrize("precision", ["int8", "int8-dynamic"])
def test_weights_lie_on_the_integer_grid_of_their_channel(precision: str, bits: int) -> None:
    network, ranges, _ = deployed(SPECS)
    simulated = simulate(network, uniform_policy(SPECS, precision), ranges, weight_bits=bits)
    limit, seen = {7: 64, 8: 127}[bits], 0
    for plain, block in zip(network.blocks, simulated.blocks, strict=True):
        before = [m.weight for m in plain.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        after = [m.weight for m in block.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        for old, new in zip(before, after, strict=True):
            if torch.equal(old, new):
                continue
            seen += 1
            for old_channel, new_channel in zip(old, new, strict=True):
                step = float(old_channel.abs().max()) / limit
                levels = new_channel / step
                assert (levels - levels.round()).abs().max() < 1e-3
                assert float(levels.abs().max()) == pytest.approx(limit, abs=1e-3)
                assert (new_channel - old_channel).abs().max() <= step * 0.501
    assert seen >= 4


@torch.no_grad()
@pytest.mark.parametrize("batch_size", [1, 3])
def test_dynamic_ranges_are_those_of_each_batch(batch_size: int) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(6, 5)
    x_BTC = torch.randn(7, 4, 6) * torch.arange(1, 8).view(-1, 1, 1)
    expected = []
    for part_BTC in x_BTC.split(batch_size):
        scale, zero = affine(min(float(part_BTC.min()), 0), max(float(part_BTC.max()), 0))
        weight = quantize_weight(plain.weight, 8)
        expected.append(integers(part_BTC, scale, zero) @ weight.T + plain.bias)
    before = x_BTC.clone()
    simulated = DynamicLinear(nn.Linear(6, 5), batch_size)
    simulated.linear.weight.copy_(quantize_weight(plain.weight, 8))
    simulated.linear.bias.copy_(plain.bias)
    torch.testing.assert_close(simulated(x_BTC), torch.cat(expected), atol=1e-4, rtol=1e-4)
    assert torch.equal(x_BTC, before)


@torch.no_grad()
def test_static_operators_round_inputs_and_convolution_outputs_to_calibrated_levels() -> None:
    spec = CASES["downsample"]
    network, ranges, x_BCHW = deployed((spec,))
    found, conv = ranges[spec.name][""], network.blocks[0]
    x_int8 = integers(x_BCHW, *affine(found.input_low, found.input_high))
    weight = quantize_weight(conv.weight, 8)
    y_BCHW = nn.functional.conv2d(x_int8, weight, conv.bias, stride=2, padding=1)
    expected = integers(y_BCHW, *affine(found.output_low, found.output_high))
    simulated = simulate(network, uniform_policy((spec,), "int8"), ranges)(x_BCHW)
    step = (found.output_high - found.output_low) / 255
    assert (simulated - expected).abs().max() <= step * 1.01  # a bias rounded to int32 may tip a tie
    assert rms(simulated - expected) < 0.1 * step


@torch.no_grad()
def test_static_int8_leaves_the_convolution_over_the_image_in_fp32() -> None:
    spec = CASES["stem, stride 2"]
    network, ranges, x_BCHW = deployed((spec,))
    simulated = simulate(network, uniform_policy((spec,), "int8"), ranges)
    plain, changed = ([m for m in n.modules() if isinstance(m, nn.Conv2d)] for n in (network, simulated))
    assert [torch.equal(old.weight, new.weight) for old, new in zip(plain, changed, strict=True)] == [True, False]
    assert torch.equal(simulated.blocks[0][0](x_BCHW), network.blocks[0][0](x_BCHW))


@torch.no_grad()
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("num_inputs", [1, 16, 32, 40, 96, 288])
def test_blocks_of_weights_are_rounded_as_onnx_runtime_packs_them(num_inputs: int, bits: int) -> None:
    torch.manual_seed(num_inputs)
    weight_OI = torch.randn(9, num_inputs) * torch.tensor([1e-3, 0.1, 1, 10, 1, 1, 1, 1, 0]).view(-1, 1)
    weight_OI[4:6].abs_()
    weight_OI[6:8] = (weight_OI[6:8] * 4).round() / 4  # ties
    assert torch.equal(quantize_blockwise(weight_OI, bits), unpacked(weight_OI, bits))


def unpacked(weight_OI: torch.Tensor, bits: int) -> torch.Tensor:
    """Weights read back from the packed tensors of the quantizer of ONNX Runtime."""
    linear = nn.Linear(*reversed(weight_OI.shape), bias=False)
    linear.weight.copy_(weight_OI)
    spec = BlockSpec(name="linear", kind="mlp", reads=(Port(layout="BTC", shape=(3, weight_OI.shape[1])),))
    graph = quantize_block(export_block(linear, spec), f"w{bits}", {}).graph
    node = next(node for node in graph.node if node.op_type == "MatMulNBits")
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    packed, scales, zeros = (stored[name] for name in node.input[1:4])
    num_outputs, num_blocks = packed.shape[:2]
    if bits == 4:
        packed, zeros = (np.stack([array & 15, array >> 4], -1) for array in (packed, zeros))
    level_OKI = packed.reshape(num_outputs, num_blocks, -1).astype(np.float32)
    zero_OK1 = zeros.reshape(num_outputs, -1, 1)[:, :num_blocks].astype(np.float32)
    found_OKI = (level_OKI - zero_OK1) * scales.reshape(num_outputs, num_blocks, 1)
    return torch.from_numpy(found_OKI.reshape(num_outputs, -1)[:, : weight_OI.shape[1]])


@torch.no_grad()
def test_weight_only_precisions_touch_linear_layers_alone() -> None:
    network, ranges, x_BCHW = deployed(SPECS)
    exact, errors = network(x_BCHW), []
    for precision, bits in (("w8", 8), ("w4", 4)):
        simulated = simulate(network, uniform_policy(SPECS, precision), ranges)
        for plain, block in zip(network.modules(), simulated.modules(), strict=True):
            if isinstance(plain, nn.Linear):
                assert torch.equal(block.weight, quantize_blockwise(plain.weight, bits))
            elif isinstance(plain, nn.Conv2d):
                assert torch.equal(block.weight, plain.weight)
        errors.append(rms(simulated(x_BCHW) - exact))
    assert 0 < 4 * errors[0] < errors[1] < 0.5 * rms(exact)


@torch.no_grad()
def test_one_calibration_serves_all_policies() -> None:
    network, ranges, x_BCHW = deployed(SPECS)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modules = [id(module) for module in network.modules()]
    policies = [uniform_policy(SPECS, precision) for precision in PRECISIONS[1:]]
    first = [simulate(network, policy, ranges)(x_BCHW) for policy in policies]
    again = [simulate(network, policy, ranges)(x_BCHW) for policy in reversed(policies)]
    assert modules == [id(module) for module in network.modules()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(torch.equal(one, other) for one, other in zip(first, reversed(again), strict=True))
    assert len({float(logits.sum()) for logits in first}) == len(policies)


@torch.no_grad()
def test_int8_is_near_fp32_and_fewer_bits_are_farther_away() -> None:
    network, ranges, x_BCHW = deployed(SPECS, count=32)
    exact, policy = network(x_BCHW), uniform_policy(SPECS, "int8")
    errors = [rms(simulate(network, policy, ranges, weight_bits=bits)(x_BCHW) - exact) for bits in (8, 7, 4)]
    assert 0 < errors[0] < errors[1] * 1.2 < errors[2]
    assert errors[0] < 0.1 * rms(exact)


def test_only_blocks_of_the_policy_change() -> None:
    candidate = random_candidate(SPACE, 5)
    network, ranges, _ = deployed(SPACE.blocks(candidate.architecture))
    simulated = simulate(network, candidate.policy, ranges)
    assert candidate.policy.precisions
    for spec, old, new in zip(network.specs, network.blocks, simulated.blocks, strict=True):
        assert (old is new) == (candidate.policy[spec.name] == "fp32")


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(-1.0, 1.55, (0.01, 100)), (0, 0, (1.0, 0)), (0, 2.55, (0.01, 0))]
)
def test_affine_levels_span_the_range(low: float, high: float, expected: tuple[float, int]) -> None:
    scale, zero = affine(low, high)
    assert (pytest.approx(scale), zero) == expected


APPLY = {"simulate": simulate, "export_network": export_network}


@pytest.mark.parametrize("apply", APPLY.values(), ids=APPLY)
class TestPoliciesThatCannotBe:
    def test_a_block_that_is_not_there_is_named(self, apply) -> None:
        network, ranges, _ = deployed(SPECS)
        policy = QuantizationPolicy(precisions=(("stage9.block1.token_mixer", "int8"),))
        with pytest.raises(UserError, match=r"names block 'stage9\.block1\.token_mixer', which the network hasn't"):
            apply(network, policy, ranges)

    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_a_block_with_weights_that_are_not_finite_is_named(self, apply, precision: str) -> None:
        network, ranges, _ = deployed(SPECS)
        name = network.specs[-1].name
        network.blocks[-1].classify.weight.data[0, 0] = float("nan")
        with pytest.raises(UserError, match=f"block '{name}' has weights that are not finite; train") as caught:
            apply(network, uniform_policy(SPECS, precision), ranges)
        assert not isinstance(caught.value, CandidateError)

    def test_an_operator_that_saw_only_zeros_has_no_static_scale(self, apply) -> None:
        network, ranges, _ = deployed(SPECS)
        *_, (path, found) = ranges["stem"].items()
        silent = dataclasses.replace(found, output_low=0.0, output_high=0.0)
        dead = {**ranges, "stem": {**ranges["stem"], path: silent}}
        message = f"the output of operator '{path}' of block 'stem' was always zero.*another precision"
        with pytest.raises(CandidateError, match=message):
            apply(network, uniform_policy(SPECS, "int8"), dead)
        apply(network, uniform_policy(SPECS, "int8-dynamic"), dead)

    def test_a_linear_layer_may_give_nothing_but_zeros(self, apply) -> None:
        network, ranges, _ = deployed(SPECS)
        silent = OperatorRange(input_low=0.0, input_high=1.0, output_low=0.0, output_high=0.0)
        head = dict.fromkeys(ranges["head"], silent)
        apply(network, QuantizationPolicy(precisions=(("head", "int8"),)), {**ranges, "head": head})
