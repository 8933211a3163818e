"""Ranges of activations for static int8: what went into and came out of each weighted operator on some images.

Methods, all from one pass: `min-max` keeps every value; `percentile` and `entropy` clip rare large ones. They choose a
threshold on absolute values, and a range never goes beyond the values that were seen.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import entropy
from torch import nn

from hardware_profiles.errors import unknown_name
from nas.errors import UserError
from search_spaces import Network
from search_spaces.blocks.layers import ConvRelu, Pointwise, PointwiseBlock
from search_spaces.network import run_block

PERCENTILE = 99.99
"""Share of absolute values that are kept, in %: the best for most networks of Wu et al. 2020 (arXiv 2004.09602)."""

NUM_BINS, BIN_STRIDE = 2048, 16
"""Bins of an entropy calibration's histogram, as in TensorRT, and how many of them apart the thresholds tried are."""

SIGNED_ZERO = 128
"""Zero point of signed integers as unsigned ones."""

SMOOTHING = 1e-4
"""Counted in addition in each bin (MXNet, ONNX Runtime): else a lonely outlier makes all divergences infinite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRange:
    """Smallest and largest value that goes into and comes out of one weighted operator, 0 always between them.

    `signed`: integers of values of both signs are signed, and steps symmetric about 0. `exact`: static int8 leaves the
    operator in fp32.
    """

    input_low: float
    input_high: float
    output_low: float
    output_high: float
    signed: bool = False
    exact: bool = False

    @property
    def input(self) -> tuple[float, int]:
        """Scale and zero point of what goes in."""
        return affine(self.input_low, self.input_high, signed=self.signed)

    @property
    def output(self) -> tuple[float, int]:
        """Scale and zero point of what comes out."""
        return affine(self.output_low, self.output_high, signed=self.signed)


def affine(low: float, high: float, *, signed: bool = False) -> tuple[float, int]:
    """Scale and zero point of unsigned 8-bit values for a range that contains 0, as ONNX Runtime computes them.

    With `signed`, a range of both signs has the levels of signed values, which are these less the zero point of 128.
    """
    if signed and low < 0:
        return max(-low, high) / 127, SIGNED_ZERO
    scale = (high - low) / 255
    return (scale, round(-low / scale)) if scale > 0 else (1.0, 0)


Ranges = Mapping[str, Mapping[str, OperatorRange]]
"""For each block name, the ranges of its weighted operators by module path, in order of execution."""


def operators(block: nn.Module) -> dict[str, nn.Module]:
    """The weighted parts of a deployed block: linear layers, and convolutions with the ReLU fused to them."""
    found: dict[str, nn.Module] = {}
    for path, module in block.named_modules():
        parent = path.rpartition(".")[0]
        inside = isinstance(found.get(parent), ConvRelu) and path != ""
        if isinstance(module, ConvRelu | nn.Conv2d | nn.Linear) and not inside:
            found[path] = module
    return found


def are_outputs_quantized(block: nn.Module, operator: nn.Module) -> bool:
    """Does static int8 quantize what comes out of an operator? Of convolutions it does, in files that is."""
    if isinstance(operator, Pointwise):
        return isinstance(block, PointwiseBlock) and "int8" in block.convolutions
    return not isinstance(operator, nn.Linear)


@torch.no_grad()
def calibrate(
    network: Network,
    x_BCHW: torch.Tensor,
    *,
    method: str = "min-max",
    batch_size: int = 1,
    signed: bool = False,
) -> Ranges:
    """Ranges of all weighted operators of a deployed network, from one forward pass over normalised images.

    Args:
        method: one of `CALIBRATIONS`.
        batch_size: images that the target sees at once; ranges need at least one batch.
        signed: as in `OperatorRange`.

    Raises:
        UserError: an unknown method, fewer images than a batch, or values that are not finite.
    """
    check_method(method)
    if len(x_BCHW) < batch_size:
        raise UserError(
            f"calibration with {len(x_BCHW)} images, but the target's batch has {batch_size}; give more training "
            "images or a smaller batch"
        )
    ranges: dict[str, dict[str, OperatorRange]] = {}
    streams = {network.specs[0].reads[0].stream: x_BCHW}
    for spec, block in zip(network.specs, network.blocks, strict=True):
        with _recorded(spec.name, block, CALIBRATIONS[method]) as found:
            run_block(spec, block, streams)
        ranges[spec.name] = {path: replace(item, signed=signed) for path, item in found.items()}
    return ranges


def check_method(method: str) -> None:
    """UserError unless there is such a method of calibration."""
    if method not in CALIBRATIONS:
        raise UserError(unknown_name("calibration", method, CALIBRATIONS))


def describe_operator(block: str, path: str) -> str:
    """An operator in words, from the name of its block and its path there, "" where the block is nothing else."""
    return f"operator '{path}' of block '{block}'" if path else f"block '{block}'"


Threshold = Callable[[torch.Tensor], float]
"""From values to the largest absolute value that is kept."""


@contextmanager
def _recorded(name: str, block: nn.Module, threshold: Threshold) -> Iterator[dict[str, OperatorRange]]:
    """Ranges of the operators that run inside the `with` block, by path."""
    found: dict[str, OperatorRange] = {}
    hooks = [
        module.register_forward_hook(_recorder(found, name, path, threshold))
        for path, module in operators(block).items()
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _recorder(
    found: dict[str, OperatorRange], name: str, path: str, threshold: Threshold
) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
    where = describe_operator(name, path)

    def record(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if path in found:
            raise UserError(f"{where} runs twice, which int8 doesn't support; keep the block in fp32")
        input_low, input_high = _range(inputs[0], where, threshold)
        output_low, output_high = _range(output, where, threshold)
        found[path] = OperatorRange(
            input_low=input_low,
            input_high=input_high,
            output_low=output_low,
            output_high=output_high,
            exact=isinstance(module, ConvRelu) and module.exact,
        )

    return record


def _range(values: torch.Tensor, where: str, threshold: Threshold) -> tuple[float, float]:
    low, high = (float(value) for value in values.aminmax())
    if not np.isfinite([low, high]).all():
        raise UserError(f"calibration found values that are not finite at {where}; train the supernet again")
    largest = threshold(values)
    return max(min(low, 0.0), -largest), min(max(high, 0.0), largest)


def _keep_all(values: torch.Tensor) -> float:
    return float("inf")


def percentile_threshold(values: torch.Tensor) -> float:
    """The `PERCENTILE` of the absolute values (Wu et al. 2020)."""
    magnitudes = values.abs().flatten()
    rank = round(PERCENTILE / 100 * (len(magnitudes) - 1)) + 1
    return float(magnitudes.kthvalue(rank).values)


def entropy_threshold(values: torch.Tensor) -> float:
    """The threshold whose clipped and quantized distribution is nearest to the original one by KL divergence.

    Migacz 2017, "8-bit inference with TensorRT". Values of one sign have all 8 bits, others one bit for the sign. The
    first bin is taken to be as full as the second: zeros, of which a ReLU makes many, are exact at any threshold.
    """
    magnitudes = values.abs().flatten()
    largest = float(magnitudes.max())
    if largest == 0:
        return 0.0
    counts = torch.histc(magnitudes.float(), NUM_BINS, 0, largest).double().numpy()
    counts[0] = counts[1]
    num_levels = 256 if float(values.min()) >= 0 else 128
    ends = range(num_levels, NUM_BINS + 1, BIN_STRIDE)
    divergences = [_divergence(counts, end, num_levels) for end in ends]
    return largest * ends[int(np.argmin(divergences))] / NUM_BINS


def _divergence(counts: np.ndarray, end: int, num_levels: int) -> float:
    """KL divergence of a histogram clipped to its first `end` bins from what `num_levels` equal steps keep of it."""
    kept = counts[:end]
    clipped = kept.copy()
    clipped[-1] += counts[end:].sum()
    level = np.arange(end) * num_levels // end
    filled = kept > 0
    totals, num_filled = (np.bincount(level, weights, num_levels) for weights in (kept, filled))
    quantized = np.where(filled, (totals / np.maximum(num_filled, 1))[level], 0.0)
    return float(entropy(clipped + SMOOTHING, quantized + SMOOTHING))


CALIBRATIONS: Mapping[str, Threshold] = {
    "min-max": _keep_all,
    "percentile": percentile_threshold,
    "entropy": entropy_threshold,
}
