"""Precisions simulated in torch: what a runtime computes with a block in int8, predicted before any file is made.

Weights are symmetric, one scale an output channel. Activations are unsigned and asymmetric, one scale a tensor:
calibrated (`int8`) or taken from the target's batch at run time (`int8-dynamic`). Matrix products without weights,
softmax, norms and additions stay fp32.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nas.errors import UserError
from search_spaces import Network
from search_spaces.blocks.layers import ConvRelu
from search_spaces.network import run_block
from search_spaces.precision import QuantizationPolicy

WEIGHT_BITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRange:
    """Smallest and largest value that went into and came out of one weighted operator during calibration."""

    input_low: float
    input_high: float
    output_low: float
    output_high: float


Ranges = Mapping[str, Mapping[str, OperatorRange]]
"""For each block name, the ranges of its weighted operators by module path, in order of execution."""


def operators(block: nn.Module) -> dict[str, nn.Module]:
    """The parts of a deployed block that int8 touches: linear layers, and convolutions with the ReLU fused to them."""
    found: dict[str, nn.Module] = {}
    for path, module in block.named_modules():
        parent = path.rpartition(".")[0]
        inside = isinstance(found.get(parent), ConvRelu) and path != ""
        if isinstance(module, ConvRelu | nn.Conv2d | nn.Linear) and not inside:
            found[path] = module
    return found


@torch.no_grad()
def calibrate(network: Network, x_BCHW: torch.Tensor) -> Ranges:
    """Ranges of all weighted operators of a deployed network, from one forward pass over normalised images."""
    ranges: dict[str, dict[str, OperatorRange]] = {}
    streams = {network.specs[0].reads[0].stream: x_BCHW}
    for spec, block in zip(network.specs, network.blocks, strict=True):
        found: dict[str, OperatorRange] = {}
        ranges[spec.name] = found
        hooks = [module.register_forward_hook(_recorder(found, path)) for path, module in operators(block).items()]
        run_block(spec, block, streams)
        for hook in hooks:
            hook.remove()
    return ranges


def _recorder(found: dict[str, OperatorRange], path: str) -> Callable[..., None]:
    def record(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if path in found:
            raise UserError(
                f"operator '{path}' runs twice in one block, which int8 doesn't support; keep the block in fp32"
            )
        (low, high), (out_low, out_high) = inputs[0].aminmax(), output.aminmax()
        values = [float(value) for value in (low, high, out_low, out_high)]
        if not all(abs(value) < float("inf") for value in values):
            raise UserError(
                f"calibration found values that are not finite at operator '{path}'; train the supernet again"
            )
        found[path] = OperatorRange(
            input_low=min(values[0], 0.0),
            input_high=max(values[1], 0.0),
            output_low=min(values[2], 0.0),
            output_high=max(values[3], 0.0),
        )

    return record


def simulate(
    network: Network, policy: QuantizationPolicy, ranges: Ranges, *, batch_size: int = 1, weight_bits: int = WEIGHT_BITS
) -> Network:
    """A deployed network as the runtime computes it under `policy`, with dynamic ranges over `batch_size` images.

    It has the network's parameters, quantized, in the same order; gradients pass its activations straight through.
    """
    blocks = []
    for spec, block in zip(network.specs, network.blocks, strict=True):
        precision = policy[spec.name]
        if precision != "fp32":
            block = copy.deepcopy(block)
            for path, operator in operators(block).items():
                if precision == "int8":
                    new: nn.Module = StaticOperator(operator, ranges[spec.name][path], weight_bits)
                elif isinstance(operator, nn.Linear):
                    new = DynamicLinear(operator, batch_size, weight_bits)
                else:
                    continue  # run-time ranges are for matrix multiplications
                block = _replaced(block, path, new)
        blocks.append(block)
    return Network(network.specs, blocks).eval()


def _replaced(block: nn.Module, path: str, new: nn.Module) -> nn.Module:
    if not path:
        return new
    parent, _, name = path.rpartition(".")
    setattr(block.get_submodule(parent), name, new)
    return block


class StaticOperator(nn.Module):
    """An operator with quantized weights and calibrated input; a convolution's output is quantized too."""

    def __init__(self, operator: nn.Module, found: OperatorRange, weight_bits: int):
        super().__init__()
        layer = operator[0] if isinstance(operator, ConvRelu) else operator
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        self.operator = operator
        self.input_scale, self.input_zero = affine(found.input_low, found.input_high)
        self.output_scale, self.output_zero = affine(found.output_low, found.output_high)
        self.quantizes_output = not isinstance(layer, nn.Linear)
        if self.quantizes_output and layer.bias is not None:  # a convolution adds its bias in int32, before it rescales
            step = weight_scale(layer.weight.detach(), weight_bits).flatten() * self.input_scale
            layer.bias = nn.Parameter((layer.bias.detach() / step).round() * step)
        layer.weight = nn.Parameter(quantize_weight(layer.weight.detach(), weight_bits))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.operator(torch.fake_quantize_per_tensor_affine(x, self.input_scale, self.input_zero, 0, 255))
        if self.quantizes_output:
            y = torch.fake_quantize_per_tensor_affine(y, self.output_scale, self.output_zero, 0, 255)
        return y


class DynamicLinear(nn.Module):
    """A linear layer with quantized weights whose input range is that of each group of `batch_size` images."""

    def __init__(self, linear: nn.Linear, batch_size: int, weight_bits: int):
        super().__init__()
        linear.weight = nn.Parameter(quantize_weight(linear.weight.detach(), weight_bits))
        self.linear, self.batch_size = linear, batch_size

    def forward(self, x_BTC: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            rounded_BTC = self._rounded(x_BTC)
        return self.linear(StraightThrough.apply(x_BTC, rounded_BTC))

    def _rounded(self, x_BTC: torch.Tensor) -> torch.Tensor:
        low_B11, high_B11 = x_BTC.amin(dim=(1, 2), keepdim=True), x_BTC.amax(dim=(1, 2), keepdim=True)
        if self.batch_size > 1:
            group_B = torch.arange(len(x_BTC), device=x_BTC.device) // self.batch_size
            num_groups = int(group_B[-1]) + 1
            low_B11 = torch.stack([low_B11[group_B == g].amin() for g in range(num_groups)])[group_B, None, None]
            high_B11 = torch.stack([high_B11[group_B == g].amax() for g in range(num_groups)])[group_B, None, None]
        low_B11, high_B11 = low_B11.clamp(max=0), high_B11.clamp(min=0)
        scale_B11 = ((high_B11 - low_B11) / 255).clamp(min=torch.finfo(x_BTC.dtype).tiny)
        zero_B11 = (-low_B11 / scale_B11).round_()
        level_BTC = (x_BTC / scale_B11).round_().add_(zero_B11).clamp_(0, 255)
        return level_BTC.sub_(zero_B11).mul_(scale_B11)


class StraightThrough(torch.autograd.Function):
    """The second tensor's values with the first one's gradient (Bengio et al. 2013)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None


def affine(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of unsigned 8-bit values for a range that contains 0, as ONNX Runtime computes them."""
    scale = (high - low) / 255
    return (scale, round(-low / scale)) if scale > 0 else (1.0, 0)


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
