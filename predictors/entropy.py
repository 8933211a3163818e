"""Entropy and effectiveness of networks, from their blocks' specifications alone (DeepMAD, Shen et al. 2023).

A network is read as the stack of its weight matrices and kernels. The width of a layer is its fan-in: input channels of
a group times kernel area. Of parallel branches the one with the largest product of widths counts. So an attention block
is depth-wise kernel, one of query, key and value, and output projection: what multiplies activations with each other
(the attention map, a gate) has no weights and adds nothing, and neither does pooling. The classifier isn't part of the
stack: the entropy is that of the features it reads.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from search_spaces.network import BlockSpec

LAST_STAGE_WEIGHT = 8.0
"""Weight of the last stage's entropy, against 1 for each earlier one, as in the paper."""

_PRODUCTS = ("ConvolutionBackward", "AddmmBackward", "MmBackward", "BmmBackward", "BaddbmmBackward", "LinearBackward")
"""Autograd's names of the operators that apply weights."""


def entropy(specs: Sequence[BlockSpec]) -> float:
    """Sum over stages of weight x log(positions x channels of the stage's output) x sum of log widths up to there.

    In nats; higher is better. A stage is the blocks of one resolution; its weight is 1, the last one's
    `LAST_STAGE_WEIGHT`.
    """
    weights = entropy_weights(specs)
    return sum(weight * log_width(spec) for weight, spec in zip(weights, specs, strict=True))


def effectiveness(specs: Sequence[BlockSpec]) -> float:
    """Depth over the layers' geometric mean width: how chaotic a network is, lower trains better; 0 without layers."""
    weights = entropy_weights(specs)
    stack = [spec for weight, spec in zip(weights, specs, strict=True) if weight]
    depth = sum(num_layers(spec) for spec in stack)
    return depth / math.exp(sum(map(log_width, stack)) / depth) if depth else 0.0


def entropy_weights(specs: Sequence[BlockSpec]) -> tuple[float, ...]:
    """What each block's `log_width` is multiplied with in the entropy; 0 from the classifier on.

    It depends on the resolutions and widths of stages alone, not on what residual blocks are there.
    """
    positions: list[int] = []
    outputs: list[float] = []
    for spec in specs:
        port = spec.writes[0]
        if port.layout == "BC":
            break
        channels = port.shape[port.layout.index("C") - 1]
        positions.append(math.prod(port.shape) // channels)
        outputs.append(math.log(math.prod(port.shape)))
    weights: list[float] = []
    total = 0.0
    for index in reversed(range(len(positions))):
        if index + 1 == len(positions):
            total = LAST_STAGE_WEIGHT * outputs[index]
        elif positions[index] != positions[index + 1]:
            total += outputs[index]
        weights.append(total)
    return (*reversed(weights), *[0.0] * (len(specs) - len(positions)))


def log_width(spec: BlockSpec) -> float:
    """Log of the product of a block's widths, in nats."""
    return math.fsum(math.log(width) for width in widths(spec))


def num_layers(spec: BlockSpec) -> int:
    """Layers of a block: how many widths it has."""
    return len(widths(spec))


def widths(spec: BlockSpec) -> tuple[int, ...]:
    """Fan-ins of a block's layers, along its path with the largest product; empty where there are no weights."""
    return _widths(spec.kind, spec.args, spec.reads)


@cache
def _widths(kind: str, args: Any, reads: Any) -> tuple[int, ...]:
    with torch.device("meta"):  # shapes alone: nothing is computed
        block = BlockSpec(name=kind, kind=kind, args=args, reads=reads).build().eval()
        inputs = tuple(torch.zeros(1, *port.shape, requires_grad=True) for port in reads)
        outputs = block(*inputs)
    found: dict[Any, tuple[int, ...] | None] = {}
    paths = [_path(x.grad_fn, inputs, found) for x in (outputs if isinstance(outputs, tuple) else (outputs,))]
    return max((path for path in paths if path is not None), key=_log_product, default=())


def _path(node: Any, inputs: tuple[torch.Tensor, ...], found: dict[Any, tuple[int, ...] | None]) -> Any:
    """Fan-ins on the widest way from the inputs to a node of autograd's graph; None where there is no way."""
    if node in found:
        return found[node]
    if hasattr(node, "variable"):
        return () if any(node.variable is x for x in inputs) else None
    children = [child for child, _ in node.next_functions if child is not None]
    paths = [_path(child, inputs, found) for child in children]
    best = max((path for path in paths if path is not None), key=_log_product, default=None)
    if best is not None and node.name().startswith(_PRODUCTS):
        weights = (child for child, path in zip(children, paths, strict=True) if path is None)
        best = (*best, *(fan_in for child in weights for fan_in in _fan_ins(child)))
    found[node] = best
    return best


def _fan_ins(node: Any) -> list[int]:
    """Fan-ins of the matrices and kernels below a node; biases have none."""
    if hasattr(node, "variable"):
        weight = node.variable
        return [weight[0].numel()] if weight.ndim > 1 else []
    return [fan_in for child, _ in node.next_functions if child is not None for fan_in in _fan_ins(child)]


def _log_product(path: tuple[int, ...]) -> float:
    return math.fsum(map(math.log, path))
