"""What every block is: a residual sub-layer (or stem, down-sampler, head) that says what it reads, writes and shares.

Tensors carry their axes: B batch, C channels, H height, W width, T tokens (= H x W), N heads, D channels of one head.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One stream at one place: its name, layout and shape without the batch axis."""

    stream: str = "x"
    layout: str = "BCHW"
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.stream}:{self.layout}:{'x'.join(map(str, self.shape))}"

    def to_json(self) -> dict[str, Any]:
        return {"stream": self.stream, "layout": self.layout, "shape": list(self.shape)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Port":
        return cls(stream=data["stream"], layout=data["layout"], shape=tuple(data["shape"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightMap:
    """How one parameter is cut out of its shared tensor: a slice of the logical shape, leading or central by axis.

    The map is linear; its adjoint adds the parameter's gradient to the same slice. Subclasses may be other linear maps.
    """

    logical: tuple[int, ...]
    """The parameter's shape with packed axes split, such as (2, heads, head_dim, channels, 1, 1)."""
    central: tuple[int, ...] = ()
    """Logical axes that are cut around their centre (kernels); all others are cut from the start."""

    def initial(self, parameter: torch.Tensor) -> torch.Tensor:
        """A freshly initialised parameter as shared tensor, in logical shape."""
        return parameter.detach().reshape(self.logical)

    def window(self, shared_logical: tuple[int, ...]) -> tuple[slice, ...]:
        """The slice of a shared tensor of that logical shape."""
        pairs = zip(shared_logical, self.logical, strict=True)
        starts = [(large - small) // 2 if axis in self.central else 0 for axis, (large, small) in enumerate(pairs)]
        return tuple(slice(start, start + size) for start, size in zip(starts, self.logical, strict=True))

    def gather(self, shared: torch.Tensor) -> torch.Tensor:
        """The parameter in its logical shape, given the shared tensor in its own; a view where that is possible."""
        return shared[self.window(tuple(shared.shape))]

    def scatter(self, gradient: torch.Tensor, into: torch.Tensor) -> None:
        """Add the parameter's gradient (logical shape) into the shared gradient: the adjoint of `gather`."""
        into[self.window(tuple(into.shape))] += gradient


class Block(nn.Module, ABC):
    """A residual sub-layer. Constructors take the ports that are read, then keyword arguments of the kind."""

    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    """Precisions that change something in this kind of block; others are the same as fp32."""

    closing_scale: ClassVar[str] = ""
    """The parameter that scales the whole residual branch, if any; training starts it at zero (Goyal et al. 2017)."""

    def __init__(self, reads: tuple[Port, ...]):
        super().__init__()
        self.reads = reads

    @classmethod
    def writes(cls, reads: tuple[Port, ...], **args: Any) -> tuple[Port, ...]:
        """The ports that are written; a residual sub-layer writes what it reads."""
        return reads

    @abstractmethod
    def deploy(self) -> nn.Module:
        """The inference form with equal outputs, made of this eval-mode block's own parts."""

    def packed(self) -> dict[str, tuple[int, ...]]:
        """Logical shapes of parameters that pack several things into one axis, by parameter name."""
        return {}

    def channel_axes(self) -> dict[str, tuple[str, ...]]:
        """For parameters and buffers with channels that may be put in another order, what each logical axis holds.

        `in` and `out` are the channels read and written, `stream` both of a residual block; other names are the block's
        own, such as `hidden`; "" is an axis that stays as it is. Without an entry nothing of a tensor may move.
        """
        return {}

    def weight_maps(self) -> dict[str, WeightMap]:
        """For each parameter, how it is cut out of its shared tensor: kernels centrally, all else from the start."""
        packed, maps = self.packed(), {}
        for name, parameter in self.named_parameters():
            logical = packed.get(name, tuple(parameter.shape))
            assert math.prod(logical) == parameter.numel(), f"{name}: {logical} does not hold {tuple(parameter.shape)}"
            kernel_axes = (len(logical) - 2, len(logical) - 1) if parameter.ndim == 4 else ()
            maps[name] = WeightMap(logical=logical, central=kernel_axes)
        return maps
