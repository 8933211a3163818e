"""Simulated int8 against plain arithmetic."""

import pytest
import torch
from torch import nn

from nas.errors import UserError
from nas.quantization import DynamicLinear, affine, calibrate, operators, quantize_weight, simulate
from search_spaces.precision import QuantizationPolicy, uniform_policy
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
    simulated = DynamicLinear(nn.Linear(6, 5), batch_size, 8)
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
def test_one_calibration_serves_all_policies() -> None:
    network, ranges, x_BCHW = deployed(SPECS)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modules = [id(module) for module in network.modules()]
    policies = [uniform_policy(SPECS, "int8"), uniform_policy(SPECS, "int8-dynamic")]
    first = [simulate(network, policy, ranges)(x_BCHW) for policy in policies]
    again = [simulate(network, policy, ranges)(x_BCHW) for policy in reversed(policies)]
    assert modules == [id(module) for module in network.modules()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(first[0], again[1])
    assert torch.equal(first[1], again[0])
    assert not torch.equal(first[0], first[1])


@torch.no_grad()
def test_int8_is_near_fp32_and_fewer_bits_are_farther_away() -> None:
    network, ranges, x_BCHW = deployed(SPECS, count=32)
    exact, policy = network(x_BCHW), uniform_policy(SPECS, "int8")
    errors = [rms(simulate(network, policy, ranges, weight_bits=bits)(x_BCHW) - exact) for bits in (8, 7, 4)]
    assert 0 < errors[0] < errors[1] * 1.2 < errors[2]
    assert errors[0] < 0.1 * rms(exact)


@torch.no_grad()
def test_calibrated_ranges_hold_zero_and_the_extremes() -> None:
    network, ranges, x_BCHW = deployed(SPECS)
    stem = next(iter(ranges["stem"].values()))
    assert (stem.input_low, stem.input_high) == (float(x_BCHW.min()), float(x_BCHW.max()))
    assert stem.output_low == 0  # what leaves the ReLU
    for block, spec in zip(network.blocks, network.specs, strict=True):
        assert set(ranges[spec.name]) == set(operators(block))
        for found in ranges[spec.name].values():
            assert found.input_low <= 0 <= found.input_high
            assert found.output_low <= 0 <= found.output_high


def test_only_blocks_of_the_policy_change() -> None:
    candidate = random_candidate(SPACE, 5)
    network, ranges, _ = deployed(SPACE.blocks(candidate.architecture))
    simulated = simulate(network, candidate.policy, ranges)
    assert candidate.policy.precisions
    for spec, old, new in zip(network.specs, network.blocks, simulated.blocks, strict=True):
        assert (old is new) == (candidate.policy[spec.name] == "fp32")


def test_what_cannot_be_calibrated_is_refused() -> None:
    network, _, x_BCHW = deployed(SPECS)
    with pytest.raises(UserError, match="values that are not finite at operator '0'; train the supernet again"):
        calibrate(network, x_BCHW * float("nan"))
    shared = nn.Linear(32, 32)
    twice = deployed((CASES["head"],))[0]
    twice.blocks[0] = nn.Sequential(nn.Flatten(), nn.Linear(32 * 64, 32), shared, nn.ReLU(), shared)
    with pytest.raises(UserError, match="operator '2' runs twice in one block.*keep the block in fp32"):
        calibrate(twice, torch.randn(2, 32, 8, 8))


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(-1.0, 1.55, (0.01, 100)), (0, 0, (1.0, 0)), (0, 2.55, (0.01, 0))]
)
def test_affine_levels_span_the_range(low: float, high: float, expected: tuple[float, int]) -> None:
    scale, zero = affine(low, high)
    assert (pytest.approx(scale), zero) == expected
