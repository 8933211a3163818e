"""Figures of a ranking, against definitions written out."""

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nas.errors import UserError
from nas.fidelity.ranking import (
    Ranked,
    correlation,
    estimate,
    fidelity_figures,
    mean_over_seeds,
    other_rows,
    ranked,
    ranking_table,
    shown,
)
from tests.benchmarks.compare_strategies import best_in_bands
from tests.nas.fidelity.tables import make_rows, repeat

accuracies = st.lists(st.integers(0, 6).map(float), min_size=3, max_size=9)
RNG = np.random.default_rng(0)


def kendall_of_pairs(a: list[float], b: list[float]) -> float:
    """Tau-b by counting pairs."""
    signs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in itertools.combinations(range(len(a)), 2)]
    untied = math.sqrt(sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs))
    return float(sum(x * y for x, y in signs) / untied) if untied else math.nan


def values(frame: pd.DataFrame, *, num_resamples: int = 0) -> dict[str, float]:
    return {name: figure.value for name, figure in fidelity_figures(frame, num_resamples=num_resamples).items()}


@settings(max_examples=60, deadline=None)
@given(data=st.data(), standalone=accuracies)
def test_kendall_with_ties_counts_pairs(data: st.DataObject, standalone: list[float]) -> None:
    inherited = data.draw(st.lists(st.integers(0, 6).map(float), min_size=len(standalone), max_size=len(standalone)))
    found = values(make_rows(standalone, inherited))
    expected = kendall_of_pairs(inherited, standalone)
    assert found["kendall"] == pytest.approx(expected, nan_ok=True)
    assert found["macs_kendall"] == pytest.approx(
        kendall_of_pairs(list(range(len(standalone))), standalone), nan_ok=True
    )


@settings(max_examples=30, deadline=None)
@given(data=st.data(), standalone=accuracies)
def test_spearman_is_pearson_of_mean_ranks(data: st.DataObject, standalone: list[float]) -> None:
    inherited = data.draw(st.lists(st.integers(0, 6).map(float), min_size=len(standalone), max_size=len(standalone)))
    found = values(make_rows(standalone, inherited))["spearman"]
    if len(set(standalone)) == 1 or len(set(inherited)) == 1:
        assert math.isnan(found)
    else:
        ranks = [[sum(y < x for y in v) + (v.count(x) + 1) / 2 for x in v] for v in (standalone, inherited)]
        assert found == pytest.approx(np.corrcoef(ranks)[0, 1])


def test_figures_of_bands_are_means_over_bands_where_they_exist() -> None:
    standalone = [50.0, 51.0, 52.0, 70.0, 71.0, 72.0, 90.0, 90.0]
    inherited = [40.0, 41.0, 42.0, 60.0, 62.0, 61.0, 80.0, 81.0]
    macs = [3, 2, 1, 6, 5, 4, 8, 9]
    found = values(make_rows(standalone, inherited, macs=macs, bands=[1.0] * 3 + [2.0] * 3 + [4.0] * 2))
    assert found["kendall_in_bands"] == pytest.approx((1 + 1 / 3) / 2)  # the third band's networks are equally good
    assert found["macs_kendall_in_bands"] == pytest.approx(-1)
    assert found["kendall"] == pytest.approx(kendall_of_pairs(inherited, standalone))
    assert found["gap_pct"] == pytest.approx(np.mean(np.subtract(standalone, inherited)))


def test_other_inherited_scores_rank_where_they_are_known() -> None:
    rows = make_rows([50.0, 51.0, 52.0, 70.0, 71.0], [1.0] * 5, bands=[1.0] * 3 + [2.0] * 2).assign(
        inherited_test_cross_entropy=[0.5, 0.4, 0.3, 0.1, 0.2],
        inherited_test_true_class_pct=[3.0, 1.0, 2.0, 5.0, 6.0],
        inherited_test_estimated_error_pct=[30.0, 31.0, 29.0, 12.0, 11.0],
    )
    found = values(rows)
    assert found["cross_entropy_kendall"] == pytest.approx(0.8)  # lower is better; the last two are the wrong way round
    assert found["cross_entropy_kendall_in_bands"] == pytest.approx((1 - 1) / 2)
    assert found["true_class_kendall"] == pytest.approx(0.6)
    assert found["true_class_kendall_in_bands"] == pytest.approx((-1 / 3 + 1) / 2)
    assert found["estimate_kendall"] == pytest.approx(0.8)
    assert found["estimate_kendall_in_bands"] == pytest.approx((1 / 3 + 1) / 2)


def test_with_bands_smallest_and_largest_have_gaps_and_are_not_ranked() -> None:
    rows = make_rows([10.0, 99.0, 50.0, 51.0, 52.0], [8.0, 90.0, 42.0, 41.0, 40.0], bands=[np.nan, np.nan, 1, 1, 1])
    rows.loc[0, "role"], rows.loc[1, "role"] = "smallest", "largest"
    found = values(rows)
    assert found["kendall"] == pytest.approx(-1)
    assert (found["gap_smallest_pct"], found["gap_largest_pct"]) == (2.0, 9.0)
    assert found["gap_pct"] == pytest.approx(10.0)


def test_without_bands_or_repeats_their_figures_are_absent() -> None:
    found = values(make_rows([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]))
    assert set(found) == {
        *("kendall", "spearman", "macs_kendall", "macs_spearman", "gap_pct", "top5_regret_pct"),
    }


def test_tables_show_every_figure() -> None:
    rows = make_rows(range(50, 56), range(40, 46), bands=[1.0] * 3 + [2.0] * 3)
    rows = repeat(rows, seed=1, standalone=range(50, 56))
    figures = {name: figure.to_json() for name, figure in fidelity_figures(rows, num_resamples=9).items()}
    headings, cells = ranking_table(figures)
    assert headings == ["ranked by", "Kendall", "Kendall in bands, mean", "Spearman"]
    assert [row[0] for row in cells] == [
        "inherited accuracy",
        "MACs",
        "stand-alone accuracy by another seed",
        "stand-alone accuracy without noise, expected",
    ]
    assert cells[0][1] == shown(figures["kendall"]) == "1.00 (1.00 to 1.00)"
    assert cells[1][3] == shown(figures["macs_spearman"])
    correlations = sum(cell != "" for row in cells for cell in row[1:])
    others = other_rows(figures)
    assert others[0] == ("stand-alone minus inherited, mean, points", shown(figures["gap_pct"]))
    assert correlations + len(others) == len(figures)


@pytest.mark.parametrize("deviation", [0.5, 1.0, 3.0])
def test_a_perfect_ranking_has_what_noise_of_seeds_leaves(deviation: float) -> None:
    rng = np.random.default_rng(0)
    true = np.repeat([50.0, 80.0], 100) + deviation * rng.normal(size=200)
    first, second, third = (true + rng.normal(size=200) for _ in range(3))
    second[100:] += 4.0  # what a seed does to all networks of a band is no noise
    rows = repeat(make_rows(first, first, bands=[1.0] * 100 + [2.0] * 100), seed=1, standalone=second)
    found = fidelity_figures(repeat(rows, seed=2, standalone=third[:20]), num_resamples=20)
    # Kendall of two normal variables with correlation r is 2 asin(r) / pi; the mean of two trainings has half the noise
    expected = 2 / np.pi * np.arcsin(deviation / np.sqrt(deviation**2 + 0.5))
    assert found["perfect_kendall_in_bands"].value == pytest.approx(expected, abs=0.07)
    between = 100 * 100 / (200 * 199 / 2)  # the share of pairs of which chance reverses none
    overall = between + (1 - between) * found["perfect_kendall_in_bands"].value
    assert found["perfect_kendall"].value == pytest.approx(overall, abs=0.01)
    assert found["perfect_kendall"].low < found["perfect_kendall"].value < found["perfect_kendall"].high


def test_without_noise_a_perfect_ranking_is_perfect() -> None:
    accuracies = [50.0, 51.0, 53.0, 70.0]
    rows = repeat(make_rows(accuracies, accuracies, bands=[1.0] * 3 + [2.0]), seed=1, standalone=accuracies)
    found = values(rows, num_resamples=5)
    assert [found[f"perfect_{name}"] for name in ("kendall", "kendall_in_bands", "spearman")] == [1.0, 1.0, 1.0]


def test_another_seed_ranks_by_the_mean_over_pairs_of_seeds() -> None:
    first, second, third = [50.0, 60.0, 70.0, 80.0], [51.0, 61.0, 59.0], [70.0, 60.0, 50.0]
    rows = repeat(make_rows(first, first), seed=1, standalone=second)
    rows = repeat(rows, seed=2, standalone=third)
    found = values(rows)
    pairs = itertools.combinations((first[:3], second, third), 2)
    assert found["seed_kendall"] == pytest.approx(np.mean([kendall_of_pairs(a, b) for a, b in pairs]))
    more = repeat(rows, seed=3, standalone=[50.0, 60.0])  # two networks count two thirds of three
    expected = [*[kendall_of_pairs(a, b) for a, b in itertools.combinations((first[:3], second, third), 2)], 1, 1, -1]
    assert values(more)["seed_kendall"] == pytest.approx(np.average(expected, weights=[3, 3, 3, 2, 2, 2]))
    assert found["kendall"] == 1.0  # the fourth has the first seed alone, so all are ranked by it


def test_networks_are_ranked_by_the_mean_over_the_seeds_that_all_sampled_ones_have() -> None:
    first, second = [50.0, 60.0, 70.0, 80.0], [60.0, 56.0, 40.0, 90.0]
    rows = repeat(make_rows(first, [1.0, 2.0, 3.0, 4.0]), seed=1, standalone=second)
    rows = repeat(rows, seed=2, standalone=[99.0])  # which the others don't have
    rows.loc[rows["index"] == 3, "role"] = "largest"
    rows = rows[(rows["index"] < 3) | (rows["seed"] == 0)]
    assert ranked(rows).standalone_N.tolist() == [55.0, 58.0, 55.0, 80.0]
    assert mean_over_seeds(rows)["num_seeds"].tolist() == [2, 2, 2, 1]
    found = values(rows)
    assert found["kendall"] == pytest.approx(kendall_of_pairs([1.0, 2.0, 3.0, 4.0], [55.0, 58.0, 55.0, 80.0]))
    assert found["gap_largest_pct"] == 76.0


def test_the_best_of_bands_are_chosen_on_validation_and_judged_on_test(tmp_path: Path) -> None:
    rows = make_rows([70, 74, 71, 90, 80, 83], [60, 65, 61, 70, 72, 75], bands=[1, 1, 1, 2, 2, 2])
    rows = rows.assign(inherited_validation_pct=[60.0, 62.0, 64.0, 70.0, 76.0, 75.0])
    rows.to_csv(tmp_path / "fidelity.csv", index=False)
    # The third of the first band, where the second is better by 3 points, and the second of the other, by 10.
    assert best_in_bands(tmp_path) == {"exported_test_pct": (61 + 72) / 2, "exported_regret_pct": (3 + 10) / 2}


def test_regret_is_what_the_five_chosen_miss() -> None:
    standalone = [90.0, 80.0, 81.0, 82.0, 83.0, 84.0, 70.0]
    inherited = [10.0, 50.0, 51.0, 52.0, 53.0, 54.0, 20.0]
    assert values(make_rows(standalone, inherited))["top5_regret_pct"] == pytest.approx(6.0)
    assert values(make_rows(standalone, standalone))["top5_regret_pct"] == 0.0


def test_incomplete_rows_are_left_out_and_three_are_needed() -> None:
    rows = make_rows([50.0, 60.0, np.nan, 70.0, 80.0], [1.0, 2.0, 3.0, np.nan, 4.0])
    assert len(ranked(rows).macs_N) == 3
    assert values(rows)["kendall"] == 1.0
    with pytest.raises(UserError, match="2 architectures have both accuracies; a ranking needs 3"):
        fidelity_figures(rows.iloc[:4])


def test_a_resample_draws_as_many_from_each_band() -> None:
    rows = make_rows(range(7), range(7), bands=[1.0] * 4 + [2.0] * 3)
    seen: list[Ranked] = []

    def watch(table: Ranked) -> float:
        seen.append(table)
        return float(table.macs_N.mean())

    found = estimate(ranked(rows), watch, rng=np.random.default_rng(0), num_resamples=20)
    assert all(table.band_N.tolist() == [1.0] * 4 + [2.0] * 3 for table in seen)
    assert len({tuple(table.macs_N) for table in seen}) > 10
    assert found.low < found.value < found.high


def test_intervals_hold_the_value_depend_on_the_seed_alone_and_narrow_with_more_architectures() -> None:
    noise = RNG.normal(size=(2, 60))
    both = np.arange(60) / 20 + noise
    rows = make_rows(both[0], both[1])
    few, many = (fidelity_figures(part, num_resamples=200)["kendall"] for part in (rows.iloc[::6], rows))
    assert many.low < many.value < many.high
    assert many.high - many.low < few.high - few.low
    assert fidelity_figures(rows, num_resamples=200)["kendall"] == many
    assert fidelity_figures(rows, seed=1, num_resamples=200)["kendall"] != many


def test_a_figure_that_is_not_defined_is_null_in_json() -> None:
    figure = fidelity_figures(make_rows([5.0] * 4, [1.0, 2.0, 3.0, 4.0]), num_resamples=5)["kendall"]
    assert figure.to_json() == {"value": None, "low": None, "high": None}


def test_correlation_leaves_out_pairs_that_are_not_finite() -> None:
    a, b = np.array([1.0, np.nan, 2.0, 3.0]), np.array([1.0, 9.0, np.nan, 2.0])
    assert correlation(stats.kendalltau, a, b) == 1.0
