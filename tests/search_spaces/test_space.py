"""Spaces against brute force: genes, canonical forms, counts and costs."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import (
    SPACES,
    Architecture,
    Choice,
    SearchSpace,
    SpaceError,
    get_space,
    hybrid_mobile,
    hybrid_small,
    hybrid_tiny,
)
from search_spaces.cost import network_cost
from search_spaces.hybrid import HybridSpace, Stage

PRESETS = [hybrid_tiny(), hybrid_small(), hybrid_mobile()]
SMALL = HybridSpace(
    "small",
    (Stage(widths=(16,), depths=(1, 2)), Stage(widths=(16, 32), depths=(1,))),
    image_size=32,
    stem_stride=2,
    head_dim=16,
)
ONE_STAGE = HybridSpace("one", (Stage(widths=(16, 32), depths=(1, 2)),), image_size=16, stem_stride=2, head_dim=16)

presets = pytest.mark.parametrize("space", PRESETS, ids=lambda space: space.name)
seeds = st.integers(0, 2**32 - 1)


def tiny_space_of_tests(*, num_channels: int = 3, num_classes: int = 10) -> SearchSpace:
    """What a dotted path names."""
    return hybrid_tiny(num_channels=num_channels, num_classes=num_classes)


def genotypes(space: SearchSpace) -> list[dict]:
    names = [choice.name for choice in space.choices]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*(c.values for c in space.choices))]


@presets
@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_canonical_form_is_idempotent_and_describes_the_same_network(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    genotype = {choice.name: choice.values[rng.integers(len(choice.values))] for choice in space.choices}
    canonical = space.canonical(genotype)
    assert space.canonical(canonical) == canonical
    assert space.describe(canonical) == space.describe(genotype)


def test_genotypes_are_equal_exactly_when_networks_are() -> None:
    by_network: dict[tuple, set[tuple]] = {}
    for genotype in genotypes(ONE_STAGE):
        canonical = ONE_STAGE.canonical(genotype)
        by_network.setdefault(ONE_STAGE.describe(genotype), set()).add(tuple(canonical.items()))
    assert {len(forms) for forms in by_network.values()} == {1}
    assert len({forms.pop() for forms in by_network.values()}) == ONE_STAGE.num_architectures() == 1200


def test_number_of_architectures_is_that_of_an_enumeration() -> None:
    distinct = {tuple(SMALL.canonical(genotype).items()) for genotype in genotypes(SMALL)}
    assert len(distinct) == SMALL.num_architectures() == 28_800


@presets
@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_architectures_survive_encoding_and_json(space: SearchSpace, seed: int) -> None:
    architecture = space.sample(np.random.default_rng(seed))
    assert space.decode(space.encode(architecture)) == architecture
    assert Architecture.from_json(architecture.to_json()) == architecture
    assert space.architecture(architecture.genotype) == architecture


@presets
def test_architectures_are_made_of_the_blocks_of_their_space(space: SearchSpace) -> None:
    possible = list(space.block_specs())
    assert len(set(possible)) == len(possible)
    rng = np.random.default_rng(0)
    for architecture in [space.smallest(), space.middle(), space.largest(), *(space.sample(rng) for _ in range(20))]:
        specs = space.blocks(architecture)
        assert set(specs) <= set(possible)
        order = [space.places.index(spec.name) for spec in specs]
        assert order == sorted(set(order))


@presets
def test_neighbours_differ_in_one_gene_and_are_all_there(space: SearchSpace) -> None:
    architecture = space.sample(np.random.default_rng(3))
    neighbours = space.neighbours(architecture)
    assert architecture not in neighbours
    assert len(set(neighbours)) == len(neighbours)
    changed = {
        space.architecture(architecture.genotype | {choice.name: value})
        for choice in space.choices
        for value in choice.values
    }
    assert set(neighbours) == changed - {architecture}


@pytest.mark.parametrize(("architecture", "num_blocks"), [(ONE_STAGE.smallest(), 1), (ONE_STAGE.largest(), 2)])
def test_genes_of_blocks_beyond_the_depth_are_not_active(architecture: Architecture, num_blocks: int) -> None:
    names = {choice.name for choice in ONE_STAGE.active_choices(architecture)}
    blocks = {
        f"stage1.block{block + 1}.{kind}" for block in range(num_blocks) for kind in ("token_mixer", "channel_mixer")
    }
    assert names == {"stage1.width", "stage1.depth"} | blocks


@pytest.mark.parametrize(
    ("space", "low", "high"), list(zip(PRESETS, (0.4e6, 6.5e6, 85e6), (8.5e6, 97e6, 950e6), strict=True))
)
def test_presets_keep_to_the_multiply_accumulates_they_promise(space: SearchSpace, low: float, high: float) -> None:
    smallest, largest = (network_cost(space.blocks(a)).macs for a in (space.smallest(), space.largest()))
    assert low <= smallest < largest <= high


def test_fingerprint_changes_with_genes_and_shapes_only() -> None:
    assert hybrid_tiny().fingerprint == hybrid_tiny().fingerprint
    prints = [hybrid_tiny(), hybrid_tiny(num_channels=1), hybrid_tiny(num_classes=5), hybrid_mobile(), SMALL]
    assert len({space.fingerprint for space in prints}) == len(prints)


def test_spaces_are_found_by_name_and_by_dotted_path() -> None:
    assert [get_space(name).name for name in SPACES] == list(SPACES)
    here = f"{__name__}:tiny_space_of_tests" if "." in __name__ else "search_spaces.hybrid:hybrid_tiny"
    found = get_space(here, num_channels=1, num_classes=7)
    assert (found.num_channels, found.num_classes) == (1, 7)


def test_unknown_space_is_named_with_the_nearest() -> None:
    with pytest.raises(SpaceError, match="unknown search space 'hybird-tiny'; available: .*Did you mean hybrid-tiny?"):
        get_space("hybird-tiny")
    with pytest.raises(SpaceError, match="search space 'no_such_module:space' can't be imported"):
        get_space("no_such_module:space")


def test_wrong_genes_and_values_are_named() -> None:
    genes = SMALL.smallest().genotype
    with pytest.raises(SpaceError, match="gene 'colour' is not in small"):
        SMALL.architecture(genes | {"colour": 3})
    with pytest.raises(SpaceError, match=r"stage2.width=17 is not possible; choose one of \[16, 32\]"):
        SMALL.architecture(genes | {"stage2.width": 17})
    del genes["stage1.depth"]
    with pytest.raises(SpaceError, match="gene 'stage1.depth' has no value; small needs all of its"):
        SMALL.architecture(genes)
    with pytest.raises(SpaceError, match="of 'small', not of 'hybrid-tiny'"):
        hybrid_tiny().blocks(SMALL.smallest())
    with pytest.raises(SpaceError, match="a width of odd is 24; it must be a multiple of head_dim, 16, or less"):
        HybridSpace("odd", (Stage(widths=(8, 24), depths=(1,)),), image_size=32, stem_stride=2, head_dim=16)
    with pytest.raises(SpaceError, match="choice 'depth' has values .* all different"):
        Choice(name="depth", values=(1, 1))
