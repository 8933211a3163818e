"""The program against brute force over all architectures of two small spaces."""

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.polynomial import Polynomial

from hardware_profiles.profile import NetworkRow
from nas import entropy_program
from nas.candidates import device_free_costs
from nas.entropy_program import Budgets, max_entropy, sort_genes
from nas.errors import UserError
from predictors.entropy import entropy
from predictors.latency import LatencyPredictor
from search_spaces import Architecture, SearchSpace
from search_spaces.hybrid import HybridSpace, Stage, hybrid_mobile
from tests.hardware_profiles.profiles import make_space_profile
from tests.tiny_space import tiny

TWO_STAGES = tiny()
DEPTHS = HybridSpace("depths", (Stage(widths=(16, 32), depths=(1, 2)),), image_size=16, stem_stride=2, head_dim=16)
SPACES = {space.name: space for space in (TWO_STAGES, DEPTHS)}
BUDGETS = ("macs", "params", "effectiveness", "latency_ms")


def blocks(space: SearchSpace, architecture: Architecture) -> tuple[tuple[str, str], ...]:
    return tuple((spec.cost_key, "fp32") for spec in space.blocks(architecture))


@cache
def predictor(name: str) -> LatencyPredictor:
    """One whose ratio to the sum depends on the sum, learned from much alike networks: it cuts off those of others."""
    space, rng = SPACES[name], np.random.default_rng(0)
    profile = make_space_profile(space)
    networks = [blocks(space, space.sample(rng)) for _ in range(80)]
    sums_ms = LatencyPredictor(profile).predict(networks)
    rows = [
        NetworkRow(blocks=networks[i], latency_ms=float(4 + 0.6 * sums_ms[i]), spread_pct=1.0, role="fit")
        for i in np.argsort(sums_ms)[34:46]
    ]
    return LatencyPredictor.from_profile(replace(profile, networks=tuple(rows)))


def architectures(space: SearchSpace) -> list[Architecture]:
    names = [choice.name for choice in space.choices]
    genotypes = itertools.product(*(choice.values for choice in space.choices))
    found = list(dict.fromkeys(space.architecture(dict(zip(names, g, strict=True))) for g in genotypes))
    assert len(found) == space.num_architectures()
    return found


@cache
def everything(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Entropies (N,) and what is budgeted (N, 4) of all architectures."""
    space = SPACES[name]
    found = architectures(space)
    costs = [device_free_costs(space.blocks(architecture)) for architecture in found]
    latency_ms = predictor(name).predict([blocks(space, architecture) for architecture in found])
    budgeted = [[cost[budget] for budget in BUDGETS[:3]] + [ms] for cost, ms in zip(costs, latency_ms, strict=True)]
    return np.array([cost["entropy"] for cost in costs]), np.array(budgeted)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("limited", [("macs",), ("params",), ("effectiveness",), ("latency_ms",), BUDGETS])
def test_no_architecture_within_the_budgets_has_more_entropy(name: str, limited: tuple[str, ...]) -> None:
    """Budgets are exactly those of some architecture, so the best one may use all of them."""
    entropy_N, budgeted_NB = everything(name)
    rng = np.random.default_rng(1)
    for _ in range(4):
        bounds = budgeted_NB[rng.choice(len(budgeted_NB), 3)].max(axis=0)
        bounds *= np.array([1, 1, 1 + 1e-9, 1 + 1e-9])
        columns = [BUDGETS.index(budget) for budget in limited]
        kept = (budgeted_NB[:, columns] <= bounds[columns]).all(axis=1)
        assert 0 < kept.sum() < len(kept)
        budgets = Budgets(**{BUDGETS[column]: bounds[column] for column in columns})
        found = max_entropy(SPACES[name], budgets, predictor=predictor(name))
        assert entropy(SPACES[name].blocks(found)) == pytest.approx(entropy_N[kept].max(), rel=1e-9)


@pytest.mark.parametrize(
    "slope", [(0.3, 0.0), (-0.3, 0.0), (0.6, 0.15), (0.2, -0.1), (0.1, 0.1, 0.2), (0.2, 0.0, -0.2)]
)
def test_large_networks_may_take_more_than_their_blocks(slope: tuple[float, ...]) -> None:
    """Latency is no sum then; the program is still as good as brute force, whatever way the size counts."""
    space, rng = TWO_STAGES, np.random.default_rng(0)
    profile = make_space_profile(space)
    size_mb = {row.key: row.size_bytes / 1e6 for row in profile.rows if row.precision == "fp32"}
    networks = [blocks(space, space.sample(rng)) for _ in range(80)]
    log_N = np.log([sum(size_mb[key] for key, _ in network) for network in networks])
    centered_N = log_N - log_N.mean()
    ratio_N = np.maximum(Polynomial([1.5, *slope])(centered_N), 0.2)
    latency_ms = LatencyPredictor(profile).predict(networks) * ratio_N
    fitted = LatencyPredictor(profile).fit(networks, latency_ms)
    assert np.ptp([fitted.linear_form().size_ratio(size) for size in np.exp(log_N)]) > 0.1

    entropy_N, _ = everything(space.name)
    predicted_N = fitted.predict([blocks(space, architecture) for architecture in architectures(space)])
    for bound in np.quantile(predicted_N, [0.02, 0.1, 0.3, 0.6, 0.9]):
        found = max_entropy(space, Budgets(latency_ms=float(bound)), predictor=fitted)
        assert fitted.predict([blocks(space, found)])[0] <= bound * (1 + 1e-6)
        most = entropy_N[predicted_N <= bound].max()
        assert entropy(space.blocks(found)) == pytest.approx(most, rel=1e-9)


@pytest.mark.parametrize("name", SPACES)
def test_predictions_that_are_cut_off_are_cut_off_in_the_program(name: str) -> None:
    """The linear form, with its bounds, is what the predictor gives for every network in one precision."""
    space, form = SPACES[name], predictor(name).linear_form()
    rng = np.random.default_rng(2)
    cut = {"low": 0, "high": 0}
    for _ in range(200):
        network = blocks(space, space.sample(rng))
        profile = predictor(name).profile
        rows_ms = sum(profile.latency_ms(*block) for block in network)
        linear_ms = form.fixed_ms + sum(form.rows_ms[profile.row(*block)] for block in network)
        size_mb = sum(profile.rows[profile.row(*block)].size_bytes for block in network) / 1e6
        linear_ms += form.size_ratio(size_mb) * (form.call_ms + rows_ms)
        low_ms, high_ms = (ratio * (form.call_ms + rows_ms) for ratio in (form.lowest_ratio, form.highest_ratio))
        cut["low"] += bool(linear_ms < low_ms)
        cut["high"] += bool(linear_ms > high_ms)
        assert predictor(name).predict([network])[0] == pytest.approx(np.clip(linear_ms, low_ms, high_ms))
    assert min(cut.values()) > 0


def test_without_budgets_it_is_the_architecture_of_most_entropy() -> None:
    entropy_N, _ = everything("depths")
    assert entropy(DEPTHS.blocks(max_entropy(DEPTHS, Budgets()))) == pytest.approx(entropy_N.max())


def test_genes_are_sorted_by_what_they_change() -> None:
    genes = sort_genes(hybrid_mobile())
    assert [choice.name for choice in genes.coupling] == [f"stage{s}.width" for s in (1, 2, 3, 4)]
    assert genes.switches["stage3.block6.token_mixer"].name == "stage3.depth"
    assert "stage3.block2.token_mixer" not in genes.switches
    assert [choice.name for choice in genes.local["stage1.block1.channel_mixer"]] == ["stage1.block1.channel_mixer"]


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ({"macs": 1e3}, "no architecture of 'depths' keeps all budgets; loosen one of them"),
        ({"latency_ms": 1.0}, "a budget of latency needs a hardware profile"),
        ({"params": -2}, "max_params is -2; a budget must be positive"),
        ({"effectiveness": float("nan")}, "max_effectiveness is nan; a budget must be positive"),
    ],
)
def test_budgets_that_can_not_be_are_told_in_one_line(budgets: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        max_entropy(DEPTHS, Budgets(**budgets))


def test_too_many_coupled_genes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entropy_program, "MAX_PROGRAMS", 1)
    with pytest.raises(UserError, match="have 2 values together, more than the 1 this method tries"):
        max_entropy(DEPTHS, Budgets())
