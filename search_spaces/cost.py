"""What blocks cost on any device, deployed and for one image: multiply-accumulates, parameters, activation memory."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from search_spaces.errors import SpaceError
from search_spaces.network import BlockSpec

HEAVY = ("conv", "linear", "matmul", "bmm", "addmm", "einsum", "attention")
"""fvcore's names of the operators whose multiply-accumulates count; element-wise work doesn't."""

_LIGHT = """
    add add_ sub sub_ rsub mul mul_ div div_ neg pow sqrt rsqrt exp log abs square reciprocal
    clamp clamp_min clamp_max minimum maximum mean sum amax amin max min cumsum softmax
    relu relu_ relu6 hardtanh hardswish hardswish_ hardsigmoid sigmoid silu silu_ gelu tanh softplus elu leaky_relu
    avg_pool2d max_pool2d adaptive_avg_pool2d upsample_nearest2d pixel_shuffle pixel_unshuffle dropout feature_dropout
    unflatten flip roll gather index_select pad constant_pad_nd clone contiguous to
"""
LIGHT = frozenset(f"aten::{name}" for name in _LIGHT.split())
"""Operators whose work is proportional to their tensors' size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Device-independent cost for one image; lower is better."""

    macs: int
    """Multiply-accumulates of convolutions, linear layers and matrix products, attention's included."""
    num_params: int
    """Parameters of the deployed form."""
    peak_activation_bytes: int
    """Largest sum of a block's fp32 input with the input and output of one of its layers."""


def network_cost(specs: Iterable[BlockSpec]) -> Cost:
    """Cost of blocks in sequence: sums, and the largest peak. Weights that are shared count once."""
    specs = tuple(specs)
    costs = [block_cost(spec) for spec in specs]
    shared = {spec.weight_key: cost.num_params for spec, cost in zip(specs, costs, strict=True)}
    return Cost(
        macs=sum(cost.macs for cost in costs),
        num_params=sum(shared.values()),
        peak_activation_bytes=max(cost.peak_activation_bytes for cost in costs),
    )


def block_cost(spec: BlockSpec) -> Cost:
    """Cost of one block; SpaceError when it contains an operator whose work is unknown."""
    return _cost_of(spec.kind, spec.args, spec.reads)


@cache
def _cost_of(kind: str, args: Any, reads: Any) -> Cost:
    spec = BlockSpec(name=kind, kind=kind, args=args, reads=reads)
    block = spec.build().eval().deploy().eval()
    inputs = tuple(torch.zeros(1, *port.shape) for port in reads)
    return Cost(
        macs=count_macs(block, inputs),
        num_params=sum(parameter.numel() for parameter in block.parameters()),
        peak_activation_bytes=_peak_bytes(block, inputs),
    )


def count_macs(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> int:
    """Multiply-accumulates of a module. fvcore skips what it doesn't know; here only `LIGHT` operators are skipped."""
    analysis = FlopCountAnalysis(module, inputs)
    analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    counts = analysis.by_operator()
    if unknown := sorted(name for name in analysis.unsupported_ops() if name not in LIGHT):
        raise SpaceError(
            f"the cost of operator '{unknown[0]}' is unknown; add it to search_spaces.cost (heavy or light)"
        )
    return int(sum(counts[name] for name in HEAVY))


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> Any:
    """Both products of softmax(q k^T) v."""
    query, key, value = (tensor.type().sizes() for tensor in inputs[:3])
    batch_heads = 1
    for size in query[:-2]:
        batch_heads *= size
    return Counter({"attention": batch_heads * query[-2] * key[-2] * (query[-1] + value[-1])})


@torch.no_grad()
def _peak_bytes(block: nn.Module, inputs: tuple[torch.Tensor, ...]) -> int:
    held, peak = sum(tensor.numel() for tensor in inputs), 0

    def watch(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal peak
        peak = max(peak, held + sum(tensor.numel() for tensor in args) + output.numel())

    hooks = [module.register_forward_hook(watch) for module in block.modules() if not list(module.children())]
    block(*inputs)
    for hook in hooks:
        hook.remove()
    return 4 * max(peak, held)
