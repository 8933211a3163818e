"""The supernet: a store of weights from which sub-networks are gathered, and to which their gradients are scattered.

Sub-networks are ordinary modules of ordinary layers. All shared tensors live in one flat buffer, as do their gradients.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from nas.errors import UserError
from search_spaces import Architecture, BlockSpec, Network, SearchSpace
from search_spaces.blocks import Block, WeightMap
from search_spaces.errors import unknown_name

ENTANGLEMENTS = ("full", "width")
"""What blocks of one place and kind share; see `Supernet`."""


class _Link(NamedTuple):
    """One parameter of a block and the shared tensor that it is cut from."""

    parameter: nn.Parameter
    logical: torch.Tensor
    """The parameter's values in logical shape, as a view."""
    weight_map: WeightMap
    shared: nn.Parameter
    shared_grad: torch.Tensor
    """Where the shared gradient is kept, whether or not a step uses it."""
    cut: torch.Tensor | None
    """The slice of the shared tensor, as a view; None where the map is not a slice."""
    grad_cut: torch.Tensor | None
    """The same slice of the shared gradient."""


class Supernet(nn.Module):
    """Shared parameters for every block of a space, each as large as the largest block needs it.

    `shared` maps `<weight key>/<parameter name>` to parameters in their logical shapes.

    Args:
        entanglement: which blocks of a place and kind are slices of one another (AutoFormer, Chen et al. 2021): all in
            `full`; in `width` those that differ in width alone, so that every kernel and every ratio of a mixer has
            weights of its own.

    Raises:
        UserError: `entanglement` is none of `ENTANGLEMENTS`.
    """

    def __init__(self, space: SearchSpace, *, entanglement: str = "full", device: torch.device | str = "cpu"):
        if entanglement not in ENTANGLEMENTS:
            raise UserError(unknown_name("entanglement", entanglement, ENTANGLEMENTS))
        super().__init__()
        self.space, self.entanglement, self.device = space, entanglement, torch.device(device)
        initial = self._largest_parameters()
        self.flat = torch.cat([tensor.flatten() for tensor in initial.values()]).to(device)
        self._reduced = torch.zeros(len(self.flat) + len(initial), device=device)
        self.flat_grad, self._uses = self._reduced.split((len(self.flat), len(initial)))
        shapes = {key: tensor.shape for key, tensor in initial.items()}
        self.shared = {key: nn.Parameter(view) for key, view in _views(self.flat, shapes)}
        self._grads = dict(_views(self.flat_grad, shapes))
        for key, parameter in self.shared.items():
            self.register_parameter(key.replace(".", ":"), parameter)
        self._links: WeakKeyDictionary[nn.Module, list[_Link]] = WeakKeyDictionary()
        self._workspace = lru_cache(maxsize=512)(self._linked_block)
        self._recent = lru_cache(maxsize=8)(self._assemble)

    @classmethod
    def read(cls, space: SearchSpace, path: Path) -> "Supernet":
        """A trained supernet, entangled as the file says; UserError as from `load`."""
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
        except (OSError, SafetensorError):
            about = {}  # `load` says what is wrong
        try:
            supernet = cls(space, entanglement=about.get("entanglement", "full"))
        except UserError as error:
            raise UserError(f"{path}: {error}; another version wrote the file, train again") from None
        supernet.load(path)
        return supernet

    def weight_key(self, spec: BlockSpec) -> str:
        """Blocks with equal keys share weights."""
        if self.entanglement == "full" or spec.writes != spec.reads:  # arguments of others are widths
            return spec.weight_key
        return spec.weight_key + "".join(f" {name}={value}" for name, value in spec.args)

    def subnet(self, architecture: Architecture, *, training: bool = True) -> Network:
        """A sub-network to use at once, in training or eval mode: those made by later calls may reuse its modules."""
        network = self._recent(architecture)
        for block in network.blocks:
            if block.training is not training:
                block.train(training)
        network.training = training
        return self._gather(network)

    def extract(self, architecture: Architecture) -> Network:
        """A plain network of its own with a copy of its weights; batch-norm statistics are still to be calibrated."""
        specs = self.space.blocks(architecture)
        return self._gather(Network(specs, [self._linked_block(spec) for spec in specs]))

    @torch.no_grad()
    def put(self, architecture: Architecture, network: Network) -> None:
        """Copy the weights of a network of its own, which is `architecture`, into its slices of the shared ones."""
        own = self.extract(architecture)
        own.load_state_dict(network.state_dict())
        for link in self._links_of(own):
            assert link.cut is not None, "only slices can be written"
            link.cut.copy_(link.logical)

    @torch.no_grad()
    def scatter(self, network: Network) -> None:
        """Add a network's gradients to the shared ones and clear them; it comes from `subnet` or `extract`."""
        gradients, targets = [], []
        for link in self._links_of(network):
            gradient = link.parameter.grad
            if gradient is None:
                continue
            link.parameter.grad = None
            if gradient.shape != link.logical.shape:
                gradient = gradient.view(link.logical.shape)
            if link.shared.grad is None:
                link.shared.grad = link.shared_grad
            if link.grad_cut is None:
                link.weight_map.scatter(gradient, link.shared_grad)
            else:
                gradients.append(gradient)
                targets.append(link.grad_cut)
        torch._foreach_add_(targets, gradients)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear all gradients. A shared tensor that no sub-network of a step used keeps none: optimizers skip it."""
        self.flat_grad.zero_()
        for parameter in self.shared.values():
            parameter.grad = None

    @torch.no_grad()
    def reduce_gradients(self, sum_over_all: Callable[[torch.Tensor], None], *, num_shards: int) -> None:
        """Average gradients over the shards of a step, of which other processes may have some: one sum for all.

        A shared tensor that any shard used has a gradient afterwards.
        """
        used = torch.tensor([parameter.grad is not None for parameter in self.shared.values()])
        self._uses.copy_(used)
        sum_over_all(self._reduced)
        self.flat_grad /= num_shards
        for (key, parameter), used_anywhere in zip(self.shared.items(), self._uses.tolist(), strict=True):
            if used_anywhere:
                parameter.grad = self._grads[key]

    def save(self, path: Path) -> None:
        """Write the shared weights as safetensors, whole or not at all."""
        part = path.with_name(path.name + ".part")
        weights = {key: parameter.detach() for key, parameter in self.shared.items()}
        save_file(weights, part, {"entanglement": self.entanglement})
        part.replace(path)

    @torch.no_grad()
    def load(self, path: Path) -> None:
        """Read shared weights; UserError when the file is not whole or is of another space."""
        try:
            weights = load_file(path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"supernet '{path}' can't be read ({error}); remove it and train again") from None
        wanted = {key: tuple(parameter.shape) for key, parameter in self.shared.items()}
        if wanted != {key: tuple(tensor.shape) for key, tensor in weights.items()}:
            raise UserError(
                f"supernet '{path}' is not of the search space '{self.space.name}' as it is now; train again"
            )
        for key, parameter in self.shared.items():
            parameter.copy_(weights[key])

    def _largest_parameters(self) -> dict[str, torch.Tensor]:
        """Freshly initialised shared tensors in logical shape: as large as any block with the key needs."""
        largest: dict[str, torch.Tensor] = {}
        for spec in self.space.block_specs():
            block = spec.build()
            maps = block.weight_maps()
            for name, parameter in block.named_parameters():
                key, tensor = f"{self.weight_key(spec)}/{name}", maps[name].initial(parameter)
                if key not in largest or tensor.numel() > largest[key].numel():
                    largest[key] = tensor
        return largest

    def _assemble(self, architecture: Architecture) -> Network:
        specs = self.space.blocks(architecture)
        return Network(specs, [self._workspace(spec) for spec in specs])

    @torch.no_grad()
    def _gather(self, network: Network) -> Network:
        targets, cuts = [], []
        for link in self._links_of(network):
            if link.cut is None:
                link.logical.copy_(link.weight_map.gather(link.shared))
            else:
                targets.append(link.logical)
                cuts.append(link.cut)
        torch._foreach_copy_(targets, cuts)
        return network

    def _links_of(self, network: Network) -> Iterator[_Link]:
        return itertools.chain.from_iterable(self._links[block] for block in network.blocks)

    def _linked_block(self, spec: BlockSpec) -> Block:
        block = spec.build().to(self.device)
        maps = block.weight_maps()
        named = block.named_parameters()
        self._links[block] = [self._link(p, maps[name], f"{self.weight_key(spec)}/{name}") for name, p in named]
        return block

    def _link(self, parameter: nn.Parameter, weight_map: WeightMap, key: str) -> _Link:
        shared, grad = self.shared[key], self._grads[key]
        window = weight_map.window(tuple(shared.shape)) if type(weight_map) is WeightMap else None
        return _Link(
            parameter=parameter,
            logical=parameter.detach().view(weight_map.logical),
            weight_map=weight_map,
            shared=shared,
            shared_grad=grad,
            cut=None if window is None else shared.detach()[window],
            grad_cut=None if window is None else grad[window],
        )


def _views(flat: torch.Tensor, shapes: dict[str, torch.Size]) -> Iterator[tuple[str, torch.Tensor]]:
    pieces = flat.split([shape.numel() for shape in shapes.values()])
    return ((key, piece.view(shape)) for (key, shape), piece in zip(shapes.items(), pieces, strict=True))
