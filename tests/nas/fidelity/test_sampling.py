"""Which architectures are trained alone."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from nas.errors import UserError
from nas.fidelity import sampling
from nas.fidelity.options import FidelityOptions
from nas.fidelity.sampling import choose_members, plan_trainings, sample_of_family
from search_spaces.cost import network_cost
from search_spaces.fixed import FixedSpace
from search_spaces.hybrid import hybrid_tiny
from tests.nas.training.runs import small_space

SPACE = hybrid_tiny(num_channels=1)


@settings(max_examples=15, deadline=None)
@given(
    low=st.floats(1.2, 1.8),
    step=st.floats(0.8, 1.2),
    width_pct=st.floats(4, 12),
    count=st.integers(4, 9),
    seed=st.integers(0, 1000),
)
def test_bands_are_filled_evenly_within_their_width_by_distinct_architectures(
    low: float, step: float, width_pct: float, count: int, seed: int
) -> None:
    bands = (low, low + step)
    options = FidelityOptions(num_architectures=count, bands=bands, band_width_pct=width_pct, seed=seed)
    members = choose_members(SPACE, options)
    assert [member.role for member in members] == ["smallest", "largest", *["sampled"] * count]
    assert [member.index for member in members] == list(range(count + 2))
    assert len({member.architecture for member in members}) == count + 2
    assert [member.band_mmacs for member in members[2:]] == [bands[place % 2] for place in range(count)]
    for member in members[2:]:
        assert member.band_mmacs is not None
        assert member.macs == network_cost(SPACE.blocks(member.architecture)).macs
        assert abs(member.macs / 1e6 - member.band_mmacs) <= member.band_mmacs * width_pct / 100


@pytest.mark.parametrize("bands", [(), (1.5, 2.5)])
def test_more_architectures_are_the_same_and_further_ones(bands: tuple[float, ...]) -> None:
    options = FidelityOptions(num_architectures=5, bands=bands)
    few, many = choose_members(SPACE, options), choose_members(SPACE, replace(options, num_architectures=9))
    assert many[: len(few)] == few
    assert choose_members(SPACE, options) == few
    assert choose_members(SPACE, replace(options, seed=1))[2:] != few[2:]


def test_families_keep_every_value_as_likely_and_repeat_it_within_an_architecture() -> None:
    rng, space = np.random.default_rng(0), hybrid_tiny()
    mixers = [choice.name for choice in space.choices if choice.name.endswith("token_mixer")]
    depth = {choice.name: choice.values[-1] for choice in space.choices if choice.name.endswith("depth")}
    drawn = [sample_of_family(space, rng).genotype for _ in range(2000)]
    drawn = [genotype for genotype in drawn if genotype.items() >= depth.items()]  # where all genes count
    first = [genotype[mixers[0]] for genotype in drawn]
    counts = np.unique(first, return_counts=True)[1]
    assert len(counts) == 6
    assert chisquare(counts).pvalue > 0.001
    repeated = np.mean([genotype[mixers[0]] == genotype[mixers[-1]] for genotype in drawn])
    assert repeated > 0.35  # a sixth in even draws, (1 + c) / (1 + 6 c) = 0.46 here for concentration c


def test_families_are_distinct_and_in_their_bands() -> None:
    options = FidelityOptions(num_architectures=6, bands=(1.5, 2.5), draws="families")
    members = choose_members(SPACE, options)
    assert len({member.architecture for member in members}) == 8
    for member in members[2:]:
        assert member.band_mmacs is not None
        assert abs(member.macs / 1e6 - member.band_mmacs) <= member.band_mmacs * options.band_width_pct / 100
    assert members != choose_members(SPACE, replace(options, draws="even"))
    assert members == choose_members(SPACE, options)


def test_without_bands_smallest_and_largest_are_among_the_architectures() -> None:
    members = choose_members(SPACE, FidelityOptions(num_architectures=4))
    assert len({member.architecture for member in members}) == 4
    assert [member.architecture for member in members[:2]] == [SPACE.smallest(), SPACE.largest()]
    assert {member.band_mmacs for member in members} == {None}


def test_a_band_that_cannot_be_filled_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MAX_DRAWS", 500)
    with pytest.raises(UserError, match=r"the band of 50 MMACs within 5% got 0 of 3 .* has 0.\d+ to \d.\d+ MMACs"):
        choose_members(SPACE, FidelityOptions(num_architectures=6, bands=(2.0, 50.0)))


def test_a_space_that_holds_too_few_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MAX_DRAWS", 50)
    alone = FixedSpace(small_space(), small_space().middle())
    with pytest.raises(UserError, match="gave 0 of 3 distinct architectures in 50 draws; lower --num-architectures"):
        choose_members(alone, FidelityOptions(num_architectures=4))


def test_first_seeds_come_first_and_the_first_sampled_are_repeated() -> None:
    options = FidelityOptions(num_architectures=6, bands=(1.5, 2.5), repeats=3, num_repeated=4, seed=7)
    plan = plan_trainings(choose_members(SPACE, options), options)
    assert [(training.member.index, training.seed) for training in plan] == [
        *((index, 7) for index in range(8)),
        *((index, seed) for seed in (8, 9) for index in range(2, 6)),
    ]
    assert len({training.folder_name for training in plan}) == len(plan)
