"""Policies and candidates: what doesn't change a network doesn't change its genotype."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from search_spaces import SpaceError, hybrid_tiny
from search_spaces.blocks import block_class
from search_spaces.precision import (
    BITS,
    PRECISIONS,
    Candidate,
    CandidateSpace,
    QuantizationPolicy,
    canonical_policy,
    uniform_policy,
)

SPACE = hybrid_tiny()
CANDIDATES = CandidateSpace(SPACE)
seeds = st.integers(0, 2**32 - 1)


def random_genotype(candidates: CandidateSpace, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return {choice.name: choice.values[rng.integers(len(choice.values))] for choice in candidates.choices}


@given(seed=seeds)
@settings(max_examples=30, deadline=None)
def test_candidates_survive_genotype_and_json(seed: int) -> None:
    candidate = CANDIDATES.candidate(random_genotype(CANDIDATES, seed))
    assert CANDIDATES.candidate(CANDIDATES.genotype(candidate)) == candidate
    assert Candidate.from_json(candidate.to_json()) == candidate


@given(seed=seeds)
@settings(max_examples=30, deadline=None)
def test_canonical_genotype_is_idempotent_and_possible(seed: int) -> None:
    canonical = CANDIDATES.canonical(random_genotype(CANDIDATES, seed))
    assert CANDIDATES.canonical(canonical) == canonical
    assert list(canonical) == [choice.name for choice in CANDIDATES.choices]
    for choice in CANDIDATES.choices:
        assert canonical[choice.name] in choice.values


def test_precision_of_an_absent_or_indifferent_block_is_fp32() -> None:
    genotype = CANDIDATES.genotype(CANDIDATES.uniform(SPACE.smallest()))
    ignored = {
        "precision.stage2.block3.channel_mixer": "int8",  # switched off by depth
        "precision.stage1.block1.token_mixer": "int8",  # pooling, which has no operator to quantize
        "precision.stem": "fp32",
    }
    assert genotype["stage2.depth"] == 1
    assert genotype["stage1.block1.token_mixer"] == "pooling"
    assert CANDIDATES.canonical(genotype | ignored) == genotype
    assert CANDIDATES.canonical(genotype | {"precision.stem": "int8"}) == genotype | {"precision.stem": "int8"}


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_uniform_policy_is_canonical_and_reaches_every_block_that_has_it(precision: str) -> None:
    specs = SPACE.blocks(SPACE.largest())
    policy = uniform_policy(specs, precision)
    assert dict(policy.precisions) == {s.name: precision for s in specs if precision in block_class(s.kind).precisions}
    assert canonical_policy(specs, dict(policy.precisions)) == policy
    assert 0 < len(policy.precisions) <= len(specs)


def test_policies_compare_by_what_they_change() -> None:
    one = QuantizationPolicy(precisions=(("b", "int8"), ("a", "fp32"), ("c", "int8-dynamic")))
    assert one == QuantizationPolicy(precisions=(("c", "int8-dynamic"), ("b", "int8")))
    assert (one["a"], one["b"], one["nowhere"]) == ("fp32", "int8", "fp32")
    with pytest.raises(SpaceError, match="unknown precision 'int4'; available: bf16, fp32, int8, int8-dynamic"):
        QuantizationPolicy(precisions=(("a", "int4"),))


def test_fixed_architecture_leaves_only_its_precisions_to_search() -> None:
    fixed = SPACE.middle()
    candidates = CandidateSpace(SPACE, fixed=fixed)
    assert [c.name for c in candidates.choices] == [f"precision.{spec.name}" for spec in SPACE.blocks(fixed)]
    for choice, spec in zip(candidates.choices, SPACE.blocks(fixed), strict=True):
        assert choice.values == block_class(spec.kind).precisions
    genotype = random_genotype(candidates, 1)
    assert candidates.candidate(genotype).architecture == fixed
    assert candidates.canonical(genotype) == genotype


def test_only_precisions_of_the_target_are_searched() -> None:
    candidates = CandidateSpace(SPACE, precisions=("int8", "fp32"))
    assert {value for c in candidates.choices if c.name.startswith("precision.") for value in c.values} == {
        "fp32",
        "int8",
    }


def test_every_precision_says_how_many_bits_it_has() -> None:
    assert set(BITS) >= set(PRECISIONS)


def test_weights_alone_are_a_choice_of_blocks_with_linear_layers_only() -> None:
    specs = SPACE.blocks(SPACE.largest())
    for spec in specs:
        deployed = spec.build().eval().deploy()
        has_linear = any(isinstance(module, nn.Linear) for module in deployed.modules())
        for precision in ("int8-dynamic", "w8", "w4"):
            assert (uniform_policy(specs, precision)[spec.name] == precision) == has_linear
