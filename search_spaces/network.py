"""A network: a named sequence of blocks over a stream, built from specifications that are plain data."""

import copy
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from search_spaces.blocks import Block, Port, block_class
from search_spaces.blocks.layers import PointwiseBlock
from search_spaces.errors import SpaceError


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSpec:
    """All that is needed to build one block, as data."""

    name: str
    """Place in the network, such as `stage1.block2.token_mixer`."""
    kind: str
    """A registered kind of block, or a dotted path `my_package.blocks:MyBlock`."""
    args: tuple[tuple[str, Any], ...] = ()
    """Keyword arguments of the block class, sorted by name."""
    reads: tuple[Port, ...]
    """What the block takes from the streams."""
    weight_key: str = field(default="")
    """Blocks with equal keys share weights; by default place and kind."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "args", tuple(sorted(dict(self.args).items())))
        if not self.weight_key:
            object.__setattr__(self, "weight_key", f"{self.name}/{self.kind}")

    @property
    def writes(self) -> tuple[Port, ...]:
        """What the block gives back to the streams."""
        return block_class(self.kind).writes(self.reads, **dict(self.args))

    @property
    def cost_key(self) -> str:
        """Row key of a hardware profile: kind, arguments and input shapes, but not the place."""
        args = "".join(f" {name}={value}" for name, value in self.args)
        return f"{self.kind}{args} @ {' '.join(map(str, self.reads))}"

    def build(self) -> Block:
        """A new block with freshly initialised weights."""
        return block_class(self.kind)(self.reads, **dict(self.args))

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "args": dict(self.args),
            "reads": [port.to_json() for port in self.reads],
            "weight_key": self.weight_key,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "BlockSpec":
        return cls(
            name=data["name"],
            kind=data["kind"],
            args=tuple(data["args"].items()),
            reads=tuple(Port.from_json(port) for port in data["reads"]),
            weight_key=data["weight_key"],
        )


class Network(nn.Module):
    """Blocks in sequence; `forward` maps images (B, C, H, W) to what the last block writes: logits (B, classes)."""

    def __init__(self, specs: Iterable[BlockSpec], blocks: Iterable[nn.Module], *, batch_size: int = 1):
        super().__init__()
        self.batch_size = batch_size
        """Images that share what depends on a batch at inference: ranges of dynamic quantization."""
        self.specs = tuple(specs)
        check_chain(self.specs)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x_BCHW: torch.Tensor, *, drop_path: float = 0.0) -> torch.Tensor:
        """Logits. With `drop_path`, each image skips residual blocks: the last one at this rate, earlier ones less."""
        streams = {self.specs[0].reads[0].stream: x_BCHW}
        for index, (spec, block) in enumerate(zip(self.specs, self.blocks, strict=True)):
            run_block(spec, block, streams, drop_path=drop_path * index / len(self.specs))
        return streams[self.specs[-1].writes[0].stream]

    def deploy(self, convolutions: Collection[tuple[str, str]] = ()) -> "Network":
        """A new network of every block's inference form, in eval mode, with equal outputs; this one stays as it is.

        `convolutions` are kinds of blocks and precisions in which their point-wise layers are convolutions in ONNX
        files (`PointwiseBlock`).
        """
        deployed = [_deployed(block) for block in self.blocks]
        for spec, block in zip(self.specs, deployed, strict=True):
            if isinstance(block, PointwiseBlock):
                block.convolutions = tuple(precision for kind, precision in convolutions if kind == spec.kind)
        return Network(self.specs, deployed).eval()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image: (C, H, W)."""
        return self.specs[0].reads[0].shape


def _deployed(block: nn.Module) -> nn.Module:
    assert isinstance(block, Block), "this network is deployed already"
    return copy.deepcopy(block).eval().deploy()


def run_block(spec: BlockSpec, block: nn.Module, streams: dict[str, torch.Tensor], *, drop_path: float = 0.0) -> None:
    """Run one block on the streams it reads and store what it writes.

    `drop_path` is the share of images for which a residual block does nothing (stochastic depth, Huang et al. 2016).
    """
    ins = tuple(streams[port.stream] for port in spec.reads)
    out = block(*ins)
    outs = out if isinstance(out, tuple) else (out,)
    if drop_path and spec.writes == spec.reads:
        kept = F.dropout(torch.ones(len(ins[0]), device=ins[0].device), drop_path)
        outs = tuple(a + (b - a) * _along(kept, b) for a, b in zip(ins, outs, strict=True))
    streams.update(zip((port.stream for port in spec.writes), outs, strict=True))


def _along(values_B: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """One value an image, so that it multiplies a tensor of any layout."""
    return values_B.view(-1, *[1] * (like.ndim - 1)).to(like.dtype)


def build_network(specs: Iterable[BlockSpec]) -> Network:
    """A network of freshly initialised blocks."""
    specs = tuple(specs)
    return Network(specs, [spec.build() for spec in specs])


def check_chain(specs: tuple[BlockSpec, ...]) -> None:
    """SpaceError when a block reads what no earlier block wrote, or in another layout or shape."""
    streams = {port.stream: port for port in specs[0].reads}
    for spec in specs:
        for port in spec.reads:
            if streams.get(port.stream) != port:
                found = streams.get(port.stream, "nothing")
                raise SpaceError(f"block '{spec.name}' reads {port} but finds {found}; neighbours must agree")
        streams.update((port.stream, port) for port in spec.writes)
