"""Channels in order of importance, so that leading slices of a network's weights keep the most valuable ones."""

import copy
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from search_spaces.blocks import Block
from search_spaces.network import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class _Use:
    """A tensor that has the channels of a group along one of its logical axes."""

    tensor: torch.Tensor
    """In logical shape, as a view."""
    axis: int
    counts: bool
    """Do its values say how important a channel is? Those of norms don't: they undo the scale of what they norm."""


@torch.no_grad()
def sort_channels(network: Network) -> Network:
    """A copy with equal outputs whose channels are sorted by the L1 norm of their weights, most important first.

    As in Once-for-All (Cai et al. 2020). Channels of the stream are sorted alike in all blocks that read or write them,
    hidden channels of a block on their own. `Block.channel_axes` says which channels may be sorted; a stream stays in
    order where one of its blocks says nothing.
    """
    network = copy.deepcopy(network)
    for uses in _groups(network).values():
        importance_C = sum(_norms(use) for use in uses if use.counts)
        order_C = torch.argsort(torch.as_tensor(importance_C), descending=True, stable=True)
        for use in uses:
            use.tensor.copy_(use.tensor.index_select(use.axis, order_C))
    return network


def _norms(use: _Use) -> torch.Tensor:
    other_axes = [axis for axis in range(use.tensor.ndim) if axis != use.axis]
    return use.tensor.abs().sum(dim=other_axes) if other_axes else use.tensor.abs()


def _groups(network: Network) -> dict[str, list[_Use]]:
    """Uses of every group of channels that may be sorted; a residual block goes on with the group that it reads.

    Channels of a stream stay where a block that reads or writes them doesn't declare them, or has several streams.
    """
    groups: dict[str, list[_Use]] = defaultdict(list)
    fixed: set[str] = set()
    current: dict[str, str] = {}
    for spec, block in zip(network.specs, network.blocks, strict=True):
        assert isinstance(block, Block), "this network is deployed; sort its channels before"
        read = [current.get(port.stream, "images") for port in spec.reads]
        written = read if spec.writes == spec.reads else [f"{spec.name}:{port.stream}" for port in spec.writes]
        named = {"in": read[0], "out": written[0], "stream": read[0]}
        uses = list(_uses(block))
        declared = {named[axis_name] for axis_name, _ in uses if axis_name in named}
        for ports in (read, written):
            if len(ports) > 1 or ports[0] not in declared:
                fixed.update(ports)
        for axis_name, use in uses:
            groups[named.get(axis_name, f"{spec.name}/{axis_name}")].append(use)
        current.update(zip((port.stream for port in spec.writes), written, strict=True))
    return {name: uses for name, uses in groups.items() if name not in fixed and any(use.counts for use in uses)}


def _uses(block: Block) -> Iterator[tuple[str, _Use]]:
    maps, tensors = block.weight_maps(), dict(block.named_parameters()) | dict(block.named_buffers())
    for name, axes in block.channel_axes().items():
        tensor = tensors[name].detach()
        sibling = name.replace("running_mean", "weight").replace("running_var", "weight")
        logical = tensor.view(maps[sibling].logical)
        for axis, axis_name in enumerate(axes):
            if axis_name:
                yield axis_name, _Use(tensor=logical, axis=axis, counts=tensor.ndim > 1)
