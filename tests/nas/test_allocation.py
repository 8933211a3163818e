"""The allocator against trying everything, and what it refuses."""

import math
from itertools import product

import numpy as np
import pytest

from nas.allocation import allocate
from nas.errors import UserError

Values = list[list[float]]


def total(values: Values, chosen: list[int]) -> float:
    return math.fsum(options[option] for options, option in zip(values, chosen, strict=True))


def by_trying_everything(
    costs: Values, sensitivities: Values, budget: float, groups: list[tuple[int, ...]]
) -> tuple[float, float]:
    """Least summed sensitivity within the budget, and the least cost it can be had for."""
    choices = (list(chosen) for chosen in product(*(range(len(options)) for options in costs)))
    fitting = [
        chosen
        for chosen in choices
        if total(costs, chosen) <= budget * (1 + 1e-12)
        and all(len({chosen[item] for item in group}) == 1 for group in groups)
    ]
    best = min(total(sensitivities, chosen) for chosen in fitting)
    equal = [chosen for chosen in fitting if total(sensitivities, chosen) <= best * (1 + 1e-12)]
    return best, min(total(costs, chosen) for chosen in equal)


def random_instance(seed: int) -> tuple[Values, Values, float, list[tuple[int, ...]]]:
    """Up to six items; a budget that some choice meets exactly; even seeds have small whole numbers, so many ties."""
    rng = np.random.default_rng(seed)
    num_options = rng.integers(1, 5, size=rng.integers(3, 7))
    num_options[1] = num_options[2]
    groups: list[tuple[int, ...]] = [(1, 2)] if seed % 3 else []

    def draw(high: int, count: int) -> list[float]:
        values = rng.integers(0, high, count) if seed % 2 == 0 else 10 ** rng.uniform(-4, 2, count)
        return [float(value) for value in values]

    costs = [draw(6, count) for count in num_options]
    sensitivities = [draw(4, count) for count in num_options]
    chosen = [int(rng.integers(count)) for count in num_options]
    chosen[2] = chosen[1]
    return costs, sensitivities, sum(options[o] for options, o in zip(costs, chosen, strict=True)), groups


@pytest.mark.parametrize("seed", range(60))
def test_an_allocation_equals_the_best_of_all_choices(seed: int) -> None:
    costs, sensitivities, budget, groups = random_instance(seed)
    chosen = allocate(costs, sensitivities, budget, groups=groups)
    best, cost = by_trying_everything(costs, sensitivities, budget, groups)
    assert total(sensitivities, chosen) == pytest.approx(best, rel=1e-9, abs=1e-12)
    assert total(costs, chosen) == pytest.approx(cost, rel=1e-9, abs=1e-12)
    assert total(costs, chosen) <= budget * (1 + 1e-12)
    assert all(len({chosen[item] for item in group}) == 1 for group in groups)


def test_of_equal_sensitivities_the_cheaper_one_is_taken() -> None:
    assert allocate([[3, 2, 4], [1, 1]], [[0, 0, 0], [5, 1]], 100) == [1, 1]


def test_groups_that_share_an_item_agree_as_one() -> None:
    costs, sensitivities = [[2, 1]] * 4, [[0, 1], [0, 1], [0, 1], [0, 10]]
    assert allocate(costs, sensitivities, 7, groups=[(0, 1), (1, 2)]) == [1, 1, 1, 0]
    assert sum(allocate(costs, sensitivities, 7)) == 1


def test_a_budget_that_one_choice_meets_exactly_is_enough() -> None:
    costs = [[0.1, 0.7], [0.2, 0.9], [0.3, 0.8]]
    assert allocate(costs, [[1, 0], [1, 0], [1, 0]], 0.1 + 0.2 + 0.3) == [0, 0, 0]
    assert allocate(costs, [[1, 0], [1, 0], [1, 0]], 0.3 + 0.2 + 0.1) == [0, 0, 0]


def test_a_choice_as_far_above_the_budget_as_the_solver_lets_it_be_is_no_failure() -> None:
    costs, sensitivities = [[5, 1], [7, 2], [8, 6]], [[5, 9], [3, 8], [2, 4]]
    assert allocate(costs, sensitivities, 15 * (1 - 1e-10)) == [0, 1, 0]


def test_an_impossible_budget_is_refused_with_the_least_possible_cost() -> None:
    with pytest.raises(UserError, match=r"a budget of 2.5 is below the least possible cost; give 3 or more") as error:
        allocate([[1, 5], [2, 9]], [[1, 0], [1, 0]], 2.5)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="give 7 or more"):
        allocate([[1, 5], [9, 2]], [[1, 0], [1, 0]], 6.9, groups=[(0, 1)])


@pytest.mark.parametrize(
    ("costs", "sensitivities", "groups", "message"),
    [
        ([], [], (), "one at least"),
        ([[1, 2]], [[1]], (), "equally many options"),
        ([[1], [2]], [[1]], (), "equally many items"),
        ([[1, math.nan]], [[1, 2]], (), "must be finite"),
        ([[1, 2], [1]], [[1, 2], [1]], [(0, 1)], "items 0 and 1 must agree, but have different numbers"),
    ],
)
def test_layouts_that_differ_are_refused(costs: Values, sensitivities: Values, groups: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        allocate(costs, sensitivities, 10, groups=groups)


def test_fifty_items_of_five_options_beat_every_single_change() -> None:
    rng = np.random.default_rng(0)
    costs = np.sort(rng.random((50, 5)))[:, ::-1]
    sensitivities = np.sort(10 ** rng.uniform(-4, 0, (50, 5)))
    budget = 0.5 * float(costs[:, 0].sum() + costs[:, -1].sum())
    chosen = np.array(allocate(costs.tolist(), sensitivities.tolist(), budget))
    items = np.arange(50)
    cost, value = costs[items, chosen].sum(), sensitivities[items, chosen].sum()
    assert cost <= budget
    better = sensitivities < sensitivities[items, chosen][:, None]
    assert (cost - costs[items, chosen][:, None] + costs > budget)[better].all()
    for other in range(100):
        perturbed = np.where(np.random.default_rng(other).random(50) < 0.1, rng.integers(0, 5, 50), chosen)
        if costs[items, perturbed].sum() <= budget:
            assert sensitivities[items, perturbed].sum() >= value - 1e-9
