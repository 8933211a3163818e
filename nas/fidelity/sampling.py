"""Which architectures are trained alone: all over a space, or in bands of nearly equal MACs."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nas.errors import UserError
from nas.fidelity.options import FidelityOptions
from search_spaces import Architecture, Genotype, SearchSpace
from search_spaces.cost import network_cost
from search_spaces.space import GeneValue

MAX_DRAWS = 100_000
"""Architectures that are drawn before a band, or a space, counts as exhausted; some ten seconds."""

CONCENTRATION = 0.3
"""Of the Dirichlet distribution, a value, from which an architecture of `families` has its probabilities.

With six values, the likeliest of an architecture has a probability of 0.6 on average.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An architecture whose two accuracies are compared."""

    index: int
    role: str
    """`smallest`, `largest` or `sampled`."""
    band_mmacs: float | None
    """Centre of its band; None outside bands."""
    architecture: Architecture
    macs: int
    params: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One architecture that is trained alone, with one seed."""

    member: Member
    seed: int

    @property
    def folder_name(self) -> str:
        """Hash of the architecture, and the seed."""
        text = json.dumps(self.member.architecture.to_json())
        return f"{hashlib.sha256(text.encode()).hexdigest()[:12]}-{self.seed}"


def choose_members(space: SearchSpace, options: FidelityOptions) -> list[Member]:
    """Smallest and largest first, then distinct architectures drawn by `options.seed`, in turn from each band.

    More architectures, with all else equal, are these and further ones. Without bands smallest and largest count
    among `num_architectures`; with bands they come in addition and belong to none.

    Raises:
        UserError: a band, or the space, doesn't hold as many.
    """
    extremes = [("smallest", space.smallest()), ("largest", space.largest())]
    drawn = _draw(space, options, without={architecture for _, architecture in extremes})
    found: list[tuple[str, float | None, Architecture]] = [(role, None, a) for role, a in extremes]
    found += [("sampled", band, architecture) for band, architecture in drawn]
    members = []
    for index, (role, band, architecture) in enumerate(found):
        cost = network_cost(space.blocks(architecture))
        members.append(
            Member(
                index=index,
                role=role,
                band_mmacs=band,
                architecture=architecture,
                macs=cost.macs,
                params=cost.num_params,
            )
        )
    return members


def plan_trainings(members: Sequence[Member], options: FidelityOptions) -> list[Training]:
    """All members with the first seed; then the first sampled ones, so in turn from each band, with the other seeds."""
    repeated = [member for member in members if member.role == "sampled"][: options.num_repeated]
    plan = [Training(member=member, seed=options.seed) for member in members]
    for repeat in range(1, options.repeats):
        plan += [Training(member=member, seed=options.seed + repeat) for member in repeated]
    return plan


def _draw(
    space: SearchSpace, options: FidelityOptions, *, without: set[Architecture]
) -> list[tuple[float | None, Architecture]]:
    """Pairs of band and architecture, bands in turn."""
    bands: tuple[float | None, ...] = options.bands or (None,)
    total = options.num_architectures - (0 if options.bands else len(without))
    wanted = [total // len(bands) + (place < total % len(bands)) for place in range(len(bands))]
    found: dict[float | None, list[Architecture]] = {band: [] for band in bands}
    for architecture in _distinct(space, options, without=without):
        if all(len(found[band]) >= count for band, count in zip(bands, wanted, strict=True)):
            break
        mmacs = network_cost(space.blocks(architecture)).macs / 1e6
        for band in bands:
            if band is None or abs(mmacs - band) <= band * options.band_width_pct / 100:
                found[band].append(architecture)
    for band, count in zip(bands, wanted, strict=True):
        if len(found[band]) < count:
            raise UserError(_too_few(space, options, band, len(found[band]), count))
    turns = itertools.zip_longest(*(found[band][:count] for band, count in zip(bands, wanted, strict=True)))
    return [(band, a) for turn in turns for band, a in zip(bands, turn, strict=True) if a is not None]


def _distinct(space: SearchSpace, options: FidelityOptions, *, without: set[Architecture]) -> Iterator[Architecture]:
    """Random genotypes, each architecture once."""
    seen, rng = set(without), np.random.default_rng(options.seed)
    for _ in range(MAX_DRAWS):
        architecture = space.sample(rng) if options.draws == "even" else sample_of_family(space, rng)
        if architecture not in seen:
            seen.add(architecture)
            yield architecture


def sample_of_family(space: SearchSpace, rng: np.random.Generator) -> Architecture:
    """An architecture whose genes of the same kind, that is name in a block and values, tend to the same value.

    Probabilities of the values are drawn first, for each kind; every value of a gene stays as likely as the others.
    """
    probabilities: dict[tuple[str, tuple[GeneValue, ...]], np.ndarray] = {}
    genotype: Genotype = {}
    for choice in space.choices:
        kind = (choice.name.rpartition(".")[2], choice.values)
        if kind not in probabilities:
            probabilities[kind] = rng.dirichlet(np.full(len(choice.values), CONCENTRATION))
        genotype[choice.name] = choice.values[rng.choice(len(choice.values), p=probabilities[kind])]
    return space.architecture(genotype)


def _too_few(space: SearchSpace, options: FidelityOptions, band: float | None, found: int, wanted: int) -> str:
    if band is None:
        return (
            f"{space.name} gave {found} of {wanted} distinct architectures in {MAX_DRAWS:,} draws; lower "
            "--num-architectures"
        )
    low, high = (network_cost(space.blocks(a)).macs / 1e6 for a in (space.smallest(), space.largest()))
    return (
        f"the band of {band:g} MMACs within {options.band_width_pct:g}% got {found} of {wanted} architectures in "
        f"{MAX_DRAWS:,} draws of {space.name}, which has {low:.3g} to {high:.3g} MMACs; choose other --bands, raise "
        "--band-width-pct or lower --num-architectures"
    )
