"""Precisions simulated in torch: what a runtime computes with a block's weighted operators, before any file is made.

int8: weights are symmetric, one scale an output channel. Activations are unsigned and asymmetric, or, where the runtime
wants that and values have both signs, signed and symmetric; one scale a tensor: calibrated (`int8`) or taken from the
target's batch at run time (`int8-dynamic`). Weight-only (`w8`, `w4`): weights of matrix multiplications in small blocks
with a scale and a zero point each, computed with in fp32. Matrix products without weights, softmax, norms, additions
and the stem's convolution over the image stay fp32. bf16: a whole block, whose sums alone are in fp32.
"""

import copy
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch
from torch import nn
from torch.nn import functional as F

from nas.bfloat16 import Bfloat16Block
from nas.calibration import (
    OperatorRange,
    Ranges,
    are_outputs_quantized,
    calibrate,
    describe_operator,
    operators,
)
from nas.errors import CandidateError, UserError
from search_spaces import Network
from search_spaces.blocks.layers import ConvRelu
from search_spaces.precision import QuantizationPolicy

__all__ = ["OperatorRange", "Ranges", "calibrate", "check_policy", "operators", "simulate"]

LayerT = TypeVar("LayerT", bound=nn.Conv2d | nn.Linear)

WEIGHT_BITS = 8
"""Of int8's weights, unless a device's profile says otherwise."""

WEIGHT_ONLY_BITS = {"w8": 8, "w4": 4}
WEIGHT_ONLY_BLOCK = 32
"""Input channels that share a scale and a zero point. With 16, ONNX Runtime stores 4-bit weights in 20% more bytes."""


def simulate(
    network: Network, policy: QuantizationPolicy, ranges: Ranges, *, batch_size: int = 1, weight_bits: int = WEIGHT_BITS
) -> Network:
    """A deployed network as the runtime computes it under `policy`, with dynamic ranges over `batch_size` images.

    It has the network's parameters, quantized, in the same order; gradients pass its activations straight through.
    Blocks that stay fp32 are shared with `network`, not copied. Raises what `check_policy` raises.
    """
    check_policy(network, policy, ranges)
    blocks = [
        _simulated_block(block, policy[spec.name], ranges.get(spec.name, {}), batch_size, weight_bits)
        for spec, block in zip(network.specs, network.blocks, strict=True)
    ]
    return Network(network.specs, blocks, batch_size=batch_size).eval()


def _simulated_block(
    block: nn.Module, precision: str, ranges: Mapping[str, OperatorRange], batch_size: int, weight_bits: int
) -> nn.Module:
    if precision == "bf16":
        return Bfloat16Block(block)
    replaced: dict[int, nn.Module] = {}
    for path, operator in operators(block).items() if precision != "fp32" else ():
        if precision == "int8" and not ranges[path].exact:
            quantizes_output = are_outputs_quantized(block, operator)
            replaced[id(operator)] = StaticOperator(operator, ranges[path], weight_bits, quantizes_output)
        elif isinstance(operator, nn.Linear):  # the other precisions are for matrix multiplications
            replaced[id(operator)] = _quantized_linear(operator, precision, batch_size, weight_bits)
    return copy.deepcopy(block, replaced) if replaced else block


def check_policy(network: Network, policy: QuantizationPolicy, ranges: Ranges) -> None:
    """Raise an error when a deployed network can't have a policy.

    Raises:
        UserError: the policy names a block that isn't there, or weights are not finite.
        CandidateError: a block would be static int8 of which calibration saw nothing but zeros at an operator.
    """
    missing = sorted({name for name, _ in policy.precisions} - {spec.name for spec in network.specs})
    if missing:
        raise UserError(f"the policy names block '{missing[0]}', which the network hasn't; take it out of the policy")
    for spec, block in zip(network.specs, network.blocks, strict=True):
        if not all(bool(tensor.isfinite().all()) for tensor in block.state_dict().values()):
            raise UserError(f"block '{spec.name}' has weights that are not finite; train the supernet again")
        if policy[spec.name] == "int8":
            _check_ranges(spec.name, block, ranges[spec.name])


def _check_ranges(name: str, block: nn.Module, ranges: Mapping[str, OperatorRange]) -> None:
    for path, operator in operators(block).items():
        seen = ranges[path]
        if seen.exact:
            continue
        quantized = [("input", seen.input_low, seen.input_high)]
        if are_outputs_quantized(block, operator):
            quantized.append(("output", seen.output_low, seen.output_high))
        for what, low, high in quantized:
            if low == high:
                raise CandidateError(
                    f"the {what} of {describe_operator(name, path)} was always zero during calibration, which gives "
                    "static int8 no scale; give the block another precision"
                )


def _quantized_linear(linear: nn.Linear, precision: str, batch_size: int, weight_bits: int) -> nn.Module:
    weight_OI = linear.weight.detach()
    if precision == "int8-dynamic":
        return DynamicLinear(_with_weights(linear, quantize_weight(weight_OI, weight_bits)), batch_size)
    return _with_weights(linear, quantize_blockwise(weight_OI, WEIGHT_ONLY_BITS[precision]))


def _with_weights(layer: LayerT, weight: torch.Tensor, bias: torch.Tensor | None = None) -> LayerT:
    """A copy of a layer with other weights, and another bias where one is given."""
    new = {id(layer.weight): nn.Parameter(weight)}
    if bias is not None:
        new[id(layer.bias)] = nn.Parameter(bias)
    return copy.deepcopy(layer, new)


class StaticOperator(nn.Module):
    """An operator with quantized weights and calibrated input, and output where `quantizes_output`."""

    def __init__(self, operator: nn.Module, found: OperatorRange, weight_bits: int, quantizes_output: bool):
        super().__init__()
        layer = operator[0] if isinstance(operator, ConvRelu) else operator
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        self.input, self.output = found.input, found.output
        self.quantizes_output = quantizes_output
        weight, bias = layer.weight.detach(), None
        if layer.bias is not None:  # added in int32, before sums are rescaled
            step = weight_scale(weight, weight_bits).flatten() * self.input[0]
            bias = (layer.bias.detach() / step).round() * step
        self.layer = _with_weights(layer, quantize_weight(weight, weight_bits), bias)
        self.activation = nn.ReLU() if isinstance(operator, ConvRelu) else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.activation(self.layer(fake_quantize(x, *self.input)))
        return fake_quantize(y, *self.output) if self.quantizes_output else y


class DynamicLinear(nn.Module):
    """A linear layer with quantized weights whose input range is that of each group of `batch_size` images.

    Its input are tokens (B, T, C), or images (B, C, H, W) of a `Pointwise` layer.
    """

    def __init__(self, linear: nn.Linear, batch_size: int):
        super().__init__()
        self.linear, self.batch_size = linear, batch_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            rounded = self._rounded(x)
        return self.linear(StraightThrough.apply(x, rounded))

    def _rounded(self, x: torch.Tensor) -> torch.Tensor:
        axes = tuple(range(1, x.ndim))
        low_B, high_B = x.amin(dim=axes), x.amax(dim=axes)
        if self.batch_size > 1:
            group_B = torch.arange(len(x), device=x.device) // self.batch_size
            num_groups = int(group_B[-1]) + 1
            low_B = torch.stack([low_B[group_B == g].amin() for g in range(num_groups)])[group_B]
            high_B = torch.stack([high_B[group_B == g].amax() for g in range(num_groups)])[group_B]
        low_B, high_B = low_B.clamp(max=0), high_B.clamp(min=0)
        scale_B = ((high_B - low_B) / 255).clamp(min=torch.finfo(x.dtype).tiny)
        scale, zero = (values_B.view(-1, *[1] * len(axes)) for values_B in (scale_B, (-low_B / scale_B).round_()))
        return (x / scale).round_().add_(zero).clamp_(0, 255).sub_(zero).mul_(scale)


class StraightThrough(torch.autograd.Function):
    """The second tensor's values with the first one's gradient (Bengio et al. 2013)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None


def fake_quantize(x: torch.Tensor, scale: float, zero: int) -> torch.Tensor:
    """`quantize`, whose gradient is that of the identity within the range and zero beyond it."""
    if not (torch.is_grad_enabled() and x.requires_grad):
        return quantize(x, scale, zero)
    inside = x.clamp(-zero * scale, (255 - zero) * scale)
    return cast(torch.Tensor, StraightThrough.apply(inside, quantize(x.detach(), scale, zero)))


def quantize(x: torch.Tensor, scale: float, zero: int) -> torch.Tensor:
    """Round to unsigned 8-bit integers and back: a twentieth of the time of torch's fake_quantize on a processor."""
    return (x / scale).round_().clamp_(-zero, 255 - zero).mul_(scale)


def largest_level(bits: int) -> int:
    """Largest integer of a weight: ONNX Runtime's range is -127..127 at 8 bits and -64..64 at 7."""
    return 127 if bits == 8 else 2 ** (bits - 1)


def quantize_weight(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Round to symmetric integers, one scale an output channel (the first axis), and back."""
    scale = weight_scale(weight, bits)
    return (weight / scale).round() * scale


def weight_scale(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Size of one integer step of each output channel, broadcast over the other axes."""
    largest = weight.abs().flatten(1).amax(dim=1).clamp(min=torch.finfo(weight.dtype).tiny)
    return (largest / largest_level(bits)).view(-1, *[1] * (weight.ndim - 1))


def quantize_blockwise(weight_OI: torch.Tensor, bits: int) -> torch.Tensor:
    """Round to unsigned integers, one scale and zero point for each `WEIGHT_ONLY_BLOCK` inputs of an output, and back.

    Halves are rounded up and levels reckoned with the reciprocal scale, as ONNX Runtime's quantizer does it.
    """
    num_inputs, largest = weight_OI.shape[1], 2**bits - 1
    weight_OKI = F.pad(weight_OI, (0, -num_inputs % WEIGHT_ONLY_BLOCK)).unflatten(1, (-1, WEIGHT_ONLY_BLOCK))
    low_OK1, high_OK1 = weight_OKI.amin(2, keepdim=True).clamp(max=0), weight_OKI.amax(2, keepdim=True).clamp(min=0)
    scale_OK1 = (high_OK1 - low_OK1) / largest
    divisor_OK1 = torch.where(scale_OK1 > 0, scale_OK1, 1.0)
    zero_OK1 = (0.5 - low_OK1 / divisor_OK1).floor().clamp(0, largest)
    level_OKI = (weight_OKI * (1 / divisor_OK1) + zero_OK1 + 0.5).floor().clamp(0, largest)
    return ((level_OKI - zero_OK1) * scale_OK1).flatten(1)[:, :num_inputs].contiguous()
