"""The space that holds one architecture of another: a network alone, as far as training and files can tell."""

from collections.abc import Iterator

from search_spaces.network import BlockSpec
from search_spaces.space import Architecture, Choice, Genotype, SearchSpace


class FixedSpace(SearchSpace):
    """`architecture` of `space` and nothing else; its supernet has that network's parameters and no others."""

    def __init__(self, space: SearchSpace, architecture: Architecture):
        self.name, self.image_size = space.name, space.image_size
        self.num_channels, self.num_classes = space.num_channels, space.num_classes
        self.choices = tuple(Choice(name=name, values=(value,)) for name, value in architecture.genes)
        self.whole, self._blocks = space, space.blocks(architecture)

    def canonical(self, genotype: Genotype) -> Genotype:
        return self.whole.canonical(genotype)

    def describe(self, genotype: Genotype) -> tuple[BlockSpec, ...]:
        return self._blocks

    def block_specs(self) -> Iterator[BlockSpec]:
        return iter(self._blocks)

    def num_architectures(self) -> int:
        return 1
