"""A search space: genes, the architectures they describe, and what can be done with them.

A *genotype* maps gene names to values. Several may describe one network (a block that depth switches off still has
genes), so every genotype has a *canonical* form: equal networks have equal canonical genotypes.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from search_spaces.errors import SpaceError
from search_spaces.network import BlockSpec, Network, build_network

GeneValue = int | float | str | bool
Genotype = dict[str, GeneValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One gene: a name and the values it may take, cheapest first where cost orders them."""

    name: str
    values: tuple[GeneValue, ...]

    def __post_init__(self) -> None:
        if not self.values or len(set(self.values)) != len(self.values):
            raise SpaceError(f"choice '{self.name}' has values {self.values}; it needs at least one, all different")

    def index(self, value: GeneValue) -> int:
        """Position of `value`; SpaceError when it is not one of the values."""
        try:
            return self.values.index(value)
        except ValueError:
            raise SpaceError(f"{self.name}={value!r} is not possible; choose one of {list(self.values)}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A point of a search space: its canonical genotype, in the order of the space's genes."""

    space: str
    genes: tuple[tuple[str, GeneValue], ...]

    @property
    def genotype(self) -> Genotype:
        return dict(self.genes)

    def to_json(self) -> dict[str, Any]:
        return {"space": self.space, "genes": self.genotype}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Architecture":
        return cls(space=data["space"], genes=tuple(data["genes"].items()))


def draw_indices(
    sizes: Sequence[int] | np.ndarray, num: int, *, rng: np.random.Generator, tilt: float = 0.0
) -> np.ndarray:
    """Value indices of `num` random genotypes, int64 of shape (num, genes), given how many values each gene has.

    Each gene is uniform over its values when `tilt` is 0. A tilt draws every genotype's genes with a leaning of its
    own, of random size up to `tilt`, towards first or last values: values are usually ordered by cost, so genotypes
    spread from small to large and do not crowd in the middle.
    """
    leaning = np.exp(tilt * rng.uniform(-1, 1, size=(num, 1)))
    return (rng.random((num, len(sizes))) ** leaning * np.asarray(sizes)).astype(np.int64)


class SearchSpace(ABC):
    """What a space must say: its genes, their canonical form, and the blocks that a genotype describes."""

    name: str
    num_classes: int
    num_channels: int
    image_size: int
    choices: tuple[Choice, ...]

    @abstractmethod
    def canonical(self, genotype: Genotype) -> Genotype:
        """The same network's canonical genotype: genes without influence take their first value."""

    @abstractmethod
    def describe(self, genotype: Genotype) -> tuple[BlockSpec, ...]:
        """The blocks of a canonical genotype's network, first to last."""

    @abstractmethod
    def block_specs(self) -> Iterator[BlockSpec]:
        """Every block that occurs in some architecture, each once; names tell places apart."""

    @abstractmethod
    def num_architectures(self) -> int:
        """How many distinct networks there are."""

    @property
    def places(self) -> tuple[str, ...]:
        """Names of all places that may hold a block, in order."""
        return tuple(dict.fromkeys(spec.name for spec in self.block_specs()))

    @property
    def fingerprint(self) -> str:
        """Changes when a gene, a block or a shape does."""
        content = {
            "genes": [[choice.name, list(choice.values)] for choice in self.choices],
            "blocks": sorted(f"{spec.weight_key} {spec.cost_key}" for spec in self.block_specs()),
        }
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def architecture(self, genotype: Mapping[str, GeneValue]) -> Architecture:
        """Validate a genotype and make it canonical."""
        names = [choice.name for choice in self.choices]
        if extra := sorted(set(genotype) - set(names)):
            raise SpaceError(f"gene '{extra[0]}' is not in {self.name}; `nas spaces {self.name}` lists its genes")
        if missing := [name for name in names if name not in genotype]:
            raise SpaceError(f"gene '{missing[0]}' has no value; {self.name} needs all of its {len(names)} genes")
        for choice in self.choices:
            choice.index(genotype[choice.name])
        canonical = self.canonical(dict(genotype))
        return Architecture(space=self.name, genes=tuple((name, canonical[name]) for name in names))

    def encode(self, architecture: Architecture) -> np.ndarray:
        """Value indices, one a gene: int array of shape (num_genes,)."""
        genotype = architecture.genotype
        return np.array([choice.index(genotype[choice.name]) for choice in self.choices])

    def decode(self, indices: np.ndarray) -> Architecture:
        """The architecture of value indices, one a gene."""
        pairs = zip(self.choices, indices, strict=True)
        return self.architecture({choice.name: choice.values[int(index)] for choice, index in pairs})

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Every gene drawn uniformly, then made canonical."""
        return self.decode(np.array([rng.integers(len(choice.values)) for choice in self.choices]))

    def smallest(self) -> Architecture:
        """The first value of every gene."""
        return self.decode(np.zeros(len(self.choices), int))

    def middle(self) -> Architecture:
        """The middle value of every gene."""
        return self.decode(np.array([len(choice.values) // 2 for choice in self.choices]))

    def largest(self) -> Architecture:
        """The last value of every gene."""
        return self.decode(np.array([len(choice.values) - 1 for choice in self.choices]))

    def neighbours(self, architecture: Architecture) -> list[Architecture]:
        """All distinct architectures that differ in one gene."""
        found: dict[Architecture, None] = {}
        for choice in self.choices:
            for value in choice.values:
                found[self.architecture(architecture.genotype | {choice.name: value})] = None
        found.pop(architecture, None)
        return list(found)

    def active_choices(self, architecture: Architecture) -> list[Choice]:
        """The genes another value of which would make another network, such as those of blocks within the depth."""
        genotype = architecture.genotype
        return [
            choice
            for choice in self.choices
            if any(self.canonical(genotype | {choice.name: value}) != genotype for value in choice.values)
        ]

    def blocks(self, architecture: Architecture) -> tuple[BlockSpec, ...]:
        """The blocks of `architecture`; SpaceError when it belongs to another space."""
        if architecture.space != self.name:
            raise SpaceError(f"this architecture is of '{architecture.space}', not of '{self.name}'")
        return self.describe(architecture.genotype)

    def point_of(self, model: nn.Module, name: str) -> tuple[Architecture, dict[str, torch.Tensor]]:
        """The architecture that equals a network of timm's, and its weights under the names they have here.

        Raises:
            SpaceError: there is none; spaces made of other libraries' blocks override this.
        """
        raise SpaceError(
            f"search space '{self.name}' has no point that equals timm's '{name}'; give the folder of an exported model"
        )

    def build(self, architecture: Architecture) -> Network:
        """A new network with its own freshly initialised weights."""
        return build_network(self.blocks(architecture))
