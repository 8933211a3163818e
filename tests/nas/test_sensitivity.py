"""Sensitivities against whole networks simulated one by one, and the policies allocated from them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from hardware_profiles.profile import HardwareProfile
from nas.candidates import CheapObjectives
from nas.data import ImageData
from nas.errors import CandidateError, UserError
from nas.evaluation import normalize
from nas.evaluator import Evaluator
from nas.sensitivity import COSTS, allocate_policy, measure_sensitivity, policy_budgets
from nas.supernet import Supernet
from search_spaces import Network
from search_spaces.blocks import block_class
from search_spaces.cost import block_cost
from search_spaces.precision import BITS, Candidate, CandidateSpace, QuantizationPolicy
from tests.hardware_profiles.profiles import make_space_profile
from tests.tiny_space import tiny

SPACE = tiny()
LARGEST = SPACE.largest()
SPECS = SPACE.blocks(LARGEST)
NUM_IMAGES = 40


@pytest.fixture(scope="module")
def profile() -> HardwareProfile:
    return make_space_profile(SPACE)


@pytest.fixture(scope="module")
def evaluator(tiny_data: ImageData) -> Evaluator:
    torch.manual_seed(0)
    return Evaluator(Supernet(SPACE), tiny_data)


@pytest.fixture(scope="module")
def table(evaluator: Evaluator, tiny_data: ImageData, profile: HardwareProfile) -> pd.DataFrame:
    return measure_sensitivity(
        evaluator.network, LARGEST, space=SPACE, profile=profile, data=tiny_data, num_images=NUM_IMAGES
    )


def candidate_of(row: pd.Series) -> Candidate:
    return Candidate(architecture=LARGEST, policy=QuantizationPolicy(precisions=((row["block"], row["precision"]),)))


def test_every_block_has_a_row_in_each_precision_of_the_target(
    table: pd.DataFrame, evaluator: Evaluator, tiny_data: ImageData, profile: HardwareProfile
) -> None:
    expected = [(spec.name, p) for spec in SPECS for p in block_class(spec.kind).precisions]
    assert list(table[["block", "precision"]].itertuples(index=False, name=None)) == [
        (name, precision) for name, precision in expected if precision in profile.precisions
    ]
    rows = tuple(row for row in profile.rows if row.precision in ("fp32", "int8"))
    fewer = replace(profile, precisions=("fp32", "int8"), rows=rows, networks=())
    found = measure_sensitivity(evaluator.network, LARGEST, space=SPACE, profile=fewer, data=tiny_data, num_images=8)
    assert set(found["precision"]) == {"fp32", "int8"}


@torch.no_grad()
def test_damage_equals_that_of_whole_networks_run_one_by_one(
    table: pd.DataFrame, evaluator: Evaluator, tiny_data: ImageData
) -> None:
    split = tiny_data.validation.spread(NUM_IMAGES)
    x_BCHW = normalize(split.images_BCHW, tiny_data)
    fp32 = Candidate(architecture=LARGEST)
    log_p_BK = F.log_softmax(evaluator.network(fp32)(x_BCHW).double(), dim=1)
    for _, row in table[table["precision"] != "fp32"].iterrows():
        log_q_BK = F.log_softmax(evaluator.network(candidate_of(row))(x_BCHW).double(), dim=1)
        divergence = (log_p_BK.exp() * (log_p_BK - log_q_BK)).sum(dim=1).mean()
        assert row["divergence"] == pytest.approx(float(divergence), rel=1e-3, abs=1e-12)
        change = evaluator.error_pct(candidate_of(row), split) - evaluator.error_pct(fp32, split)
        assert row["error_change"] == pytest.approx(change, abs=1e-3)
    assert (table.loc[table["precision"] != "fp32", "divergence"] > 0).all()
    assert (table.loc[table["precision"] == "fp32", ["divergence", "error_change"]] == 0).all(axis=None)


def test_costs_are_those_of_profile_and_bits(table: pd.DataFrame, profile: HardwareProfile) -> None:
    specs = {spec.name: spec for spec in SPECS}
    for _, row in table.iterrows():
        key = specs[row["block"]].cost_key
        found, fp32 = (profile.rows[profile.row(key, p)] for p in (row["precision"], "fp32"))
        assert row["latency_gain_ms"] == fp32.latency_ms - found.latency_ms == fp32.latency_ms - row["latency_ms"]
        assert row["size_gain_bytes"] == fp32.size_bytes - found.size_bytes == fp32.size_bytes - row["size_bytes"]
        weight_bits, activation_bits = BITS[row["precision"]]
        assert row["mac_bits"] == block_cost(specs[row["block"]]).macs * weight_bits * activation_bits
    assert BITS["fp32"] == (32, 32)
    assert BITS["int8"] == (8, 8)


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.6, 1.0])
def test_an_allocated_policy_is_the_least_damaging_of_all_within_the_budget(
    table: pd.DataFrame, cost: str, fraction: float
) -> None:
    (budget,) = policy_budgets(table, cost=cost, fractions=[fraction])
    policy = allocate_policy(SPECS, table, cost=cost, budget=budget)
    rows = {spec.name: table[table["block"] == spec.name].set_index("precision") for spec in SPECS}

    def summed(column: str, chosen: tuple[str, ...]) -> float:
        return float(np.sum([rows[spec.name].at[p, column] for spec, p in zip(SPECS, chosen, strict=True)]))

    own = tuple(policy[spec.name] for spec in SPECS)
    assert summed(cost, own) <= budget * (1 + 1e-9)
    options = [rows[spec.name][[cost, "divergence"]].to_numpy() for spec in SPECS]
    every = np.zeros((1, 2))
    for block in options:
        every = (every[:, None] + block).reshape(-1, 2)
    least = every[every[:, 0] <= budget * (1 + 1e-9), 1].min()
    assert summed("divergence", own) == pytest.approx(least, rel=1e-6, abs=1e-12)


def test_the_lowest_latency_budget_gives_the_fastest_policy(table: pd.DataFrame, profile: HardwareProfile) -> None:
    cheap = CheapObjectives(CandidateSpace(SPACE, precisions=profile.precisions), profile)
    lowest, half, highest = policy_budgets(table, fractions=[0.0, 0.5, 1.0])
    assert lowest < half < highest
    assert allocate_policy(SPECS, table, budget=lowest) == cheap.fastest(LARGEST).policy
    assert allocate_policy(SPECS, table, budget=highest) == QuantizationPolicy()
    with pytest.raises(UserError, match="below the least possible cost"):
        allocate_policy(SPECS, table, budget=0.9 * lowest)


def test_a_precision_that_breaks_a_block_is_no_option(
    evaluator: Evaluator, tiny_data: ImageData, profile: HardwareProfile
) -> None:
    def network_of(candidate: Candidate) -> Network:
        precisions = dict(candidate.policy.precisions)
        if precisions.get("stem") == "int8":
            raise CandidateError("the stem has no range")
        network = evaluator.network(candidate)
        if "head" in precisions:
            network.blocks[-1].register_forward_hook(lambda module, inputs, output: output * float("nan"))
        return network

    found = measure_sensitivity(
        network_of, LARGEST, space=SPACE, profile=profile, data=tiny_data, num_images=8
    ).set_index(["block", "precision"])
    assert ("stem", "int8") not in found.index
    assert np.isnan(found.at[("head", "int8"), "divergence"])
    flat = found.reset_index()
    policy = allocate_policy(
        SPECS, flat, budget=policy_budgets(flat, cost="mac_bits", fractions=[0])[0], cost="mac_bits"
    )
    assert (policy["stem"], policy["head"]) == ("fp32", "fp32")
    assert policy[SPECS[1].name] != "fp32"
