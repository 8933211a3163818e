"""Precisions, policies that give every block one, and candidates: an architecture together with a policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces.blocks import block_class
from search_spaces.errors import SpaceError, unknown_name
from search_spaces.network import BlockSpec
from search_spaces.space import Architecture, Choice, Genotype, SearchSpace

PRECISIONS = ("fp32", "int8", "int8-dynamic", "w8", "w4", "bf16")
"""fp32; static int8 (calibrated activation ranges, QDQ); for matrix multiplications only: int8 with run-time ranges,
and weights alone in 8 or 4 bits; a whole block in bfloat16."""

BITS = {"fp32": (32, 32), "int8": (8, 8), "int8-dynamic": (8, 8), "w8": (8, 32), "w4": (4, 32), "bf16": (16, 16)}
"""Bits of the weights and of the activations that enter the products a precision changes."""

PREFIX = "precision."
"""Precision genes are named by their place: `precision.stage1.block1.token_mixer`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationPolicy:
    """One precision for every block of an architecture, by place; blocks that aren't named stay fp32."""

    precisions: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for _, precision in self.precisions:
            if precision not in PRECISIONS:
                raise SpaceError(unknown_name("precision", precision, PRECISIONS))
        object.__setattr__(self, "precisions", tuple(sorted(pair for pair in self.precisions if pair[1] != "fp32")))

    def __getitem__(self, place: str) -> str:
        return dict(self.precisions).get(place, "fp32")

    def to_json(self) -> dict[str, str]:
        return dict(self.precisions)


def canonical_policy(specs: Sequence[BlockSpec], precisions: Mapping[str, str]) -> QuantizationPolicy:
    """The policy as far as it changes anything: a precision that a kind of block doesn't have is fp32."""
    pairs = ((spec.name, precisions.get(spec.name, "fp32")) for spec in specs)
    touched = {spec.name: block_class(spec.kind).precisions for spec in specs}
    return QuantizationPolicy(precisions=tuple((name, p) for name, p in pairs if p in touched[name]))


def uniform_policy(specs: Sequence[BlockSpec], precision: str) -> QuantizationPolicy:
    """The same precision wherever a block has it."""
    return canonical_policy(specs, {spec.name: precision for spec in specs})


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What a search proposes: an architecture and the precision of each of its blocks."""

    architecture: Architecture
    policy: QuantizationPolicy = QuantizationPolicy()

    def to_json(self) -> dict[str, Any]:
        return {"architecture": self.architecture.to_json(), "precisions": self.policy.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Candidate":
        policy = QuantizationPolicy(precisions=tuple(data["precisions"].items()))
        return cls(architecture=Architecture.from_json(data["architecture"]), policy=policy)


class CandidateSpace:
    """The genes of architecture and policy together, as the search sees them.

    `fixed` pins the architecture, so that only the policy is searched. `precisions` are those the target executes.
    """

    def __init__(
        self, space: SearchSpace, *, precisions: Sequence[str] = PRECISIONS, fixed: Architecture | None = None
    ):
        self.space, self.fixed = space, fixed
        self.precisions = tuple(p for p in PRECISIONS if p in precisions)
        places = space.places if fixed is None else tuple(spec.name for spec in space.blocks(fixed))
        possible: dict[str, set[str]] = {}
        for spec in space.block_specs() if fixed is None else space.blocks(fixed):
            possible.setdefault(spec.name, set()).update(block_class(spec.kind).precisions)
        options = {place: tuple(p for p in self.precisions if p in possible[place]) for place in places}
        policy = (Choice(name=PREFIX + place, values=values) for place, values in options.items())
        self.choices = (space.choices if fixed is None else ()) + tuple(policy)

    def candidate(self, genotype: Genotype) -> Candidate:
        """The architecture and policy of a genotype."""
        if self.fixed is None:
            architecture = self.space.architecture({c.name: genotype[c.name] for c in self.space.choices})
        else:
            architecture = self.fixed
        precisions = {name[len(PREFIX) :]: str(value) for name, value in genotype.items() if name.startswith(PREFIX)}
        return Candidate(
            architecture=architecture, policy=canonical_policy(self.space.blocks(architecture), precisions)
        )

    def genotype(self, candidate: Candidate) -> Genotype:
        """The canonical genotype of a candidate."""
        policy = dict(candidate.policy.precisions)
        architecture = candidate.architecture.genotype if self.fixed is None else {}
        names = (choice.name for choice in self.choices)
        return {
            name: policy.get(name[len(PREFIX) :], "fp32") if name.startswith(PREFIX) else architecture[name]
            for name in names
        }

    def canonical(self, genotype: Genotype) -> Genotype:
        """Equal networks in equal precisions have equal canonical genotypes."""
        return self.genotype(self.candidate(genotype))

    def uniform(self, architecture: Architecture, precision: str = "fp32") -> Candidate:
        """An architecture with one precision wherever its blocks have it."""
        return Candidate(architecture=architecture, policy=uniform_policy(self.space.blocks(architecture), precision))
