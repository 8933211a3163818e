"""Networks stage by stage: what each stage writes, and heads that read it at any width."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from nas.errors import UserError
from nas.supernet import Supernet
from nas.training.strategies.base import Passed, Strategy
from search_spaces import Architecture, BlockSpec, SearchSpace
from search_spaces.network import run_block


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A sub-network after its forward pass, with what its stages wrote."""

    passed: Passed
    features: dict[str, torch.Tensor]
    """Maps (B, C, H, W) in fp32 by stage, first to last; the head is no stage."""


class Stages:
    """How networks of a space are divided: by the first part of the blocks' names, the stem with the first stage."""

    def __init__(self, space: SearchSpace):
        specs = space.blocks(space.largest())
        *body, self._head = dict.fromkeys(_part(spec) for spec in specs)
        self._depth = len(specs)
        self._stem, self._first = body[0], body[min(1, len(body) - 1)]
        self.names = tuple(body[1:] or body)
        places = tuple(space.block_specs())
        self.widths = {name: _max_width(spec for spec in places if self.of(spec) == name) for name in self.names}
        """Most channels that a stage writes, by stage."""

    def of(self, spec: BlockSpec) -> str:
        """Name of the stage that a block belongs to."""
        part = _part(spec)
        return self._first if part == self._stem else part

    def forward(
        self,
        strategy: Strategy,
        supernet: Supernet,
        architecture: Architecture,
        x_BCHW: torch.Tensor,
        *,
        isolated: bool,
        drop_path: float,
    ) -> Staged:
        """Gather a sub-network and run it; `isolated` stops gradients between stages and before the head."""
        network = supernet.subnet(architecture)
        streams, stage = {network.specs[0].reads[0].stream: x_BCHW}, ""
        features: dict[str, torch.Tensor] = {}
        bf16 = strategy.options.mixed_precision == "bf16"
        with torch.autocast(x_BCHW.device.type, torch.bfloat16, enabled=bf16):
            for index, (spec, block) in enumerate(zip(network.specs, network.blocks, strict=True)):
                if isolated and self.of(spec) != stage:
                    streams = {name: tensor.detach() for name, tensor in streams.items()}
                stage = self.of(spec)
                run_block(spec, block, streams, drop_path=drop_path * index / self._depth)
                features[stage] = streams[spec.writes[0].stream].float()
        logits_BK = features.pop(self._head)
        return Staged(passed=Passed(supernet=supernet, network=network, logits_BK=logits_BK), features=features)


class LeadingLinear(nn.Module):
    """A linear layer for inputs (..., D) of any width up to `max_width`: narrower ones use the leading weights."""

    def __init__(self, max_width: int, out_width: int):
        super().__init__()
        self.full = nn.Linear(max_width, out_width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.full.weight[:, : x.shape[-1]], self.full.bias)


def _part(spec: BlockSpec) -> str:
    return spec.name.partition(".")[0]


def _max_width(specs: Iterable[BlockSpec]) -> int:
    ports = [spec.writes[0] for spec in specs]
    if other := [port for port in ports if port.layout != "BCHW"]:
        raise UserError(f"stages that write {other[0]} can't be compared with maps; use another strategy")
    return max(port.shape[0] for port in ports)
