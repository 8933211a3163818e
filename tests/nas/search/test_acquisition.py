import numpy as np
import pytest

from nas.search.acquisition import greedy_batch, likely_batch, optimistic_batch
from nas.search.pareto import hypervolume, is_nondominated

FRONT = np.array([[0.0, 1.0], [0.4, 0.5], [1.0, 0.0]])


def _costs(num=60, seed=0):
    return np.random.default_rng(seed).uniform(-0.2, 1.0, size=(num, 2))


def _total(costs):
    """Hypervolume where the front of all candidates spans 0 to 1."""
    together = np.concatenate([FRONT, _costs()])
    best = together[is_nondominated(together)]
    return hypervolume((costs - best.min(axis=0)) / np.ptp(best, axis=0), np.full(2, 1.1))


def test_both_batches_take_in_turn_what_adds_most_hypervolume():
    costs = _costs()
    points, expected = FRONT, []
    for _ in range(4):
        totals = [_total(np.concatenate([points, row[None]])) for row in costs]
        expected.append(int(np.argmax(totals)))
        points = np.concatenate([points, costs[expected[-1:]]])
        if np.isclose(max(totals), _total(points[:-1])):
            expected.pop()
            break
    assert len(expected) > 1
    assert optimistic_batch(costs, np.zeros_like(costs), FRONT, [0.0] * len(expected)) == expected
    assert greedy_batch(costs, FRONT, len(expected)) == expected


def test_candidate_beyond_the_measured_range_counts():
    slower_but_better = np.array([[-0.5, 3.0]])
    assert optimistic_batch(slower_but_better, np.zeros((1, 2)), FRONT, [0.0]) == [0]
    assert greedy_batch(slower_but_better, FRONT, 1) == [0]


def test_optimism_prefers_the_uncertain_of_equal_candidates():
    costs = np.array([[0.5, 0.6], [0.5, 0.6]])
    std = np.array([[0.0, 0.0], [0.2, 0.2]])
    assert optimistic_batch(costs, std, FRONT, [0.0]) == []
    assert optimistic_batch(costs, std, FRONT, [1.0]) == [1]
    assert optimistic_batch(costs, std, FRONT, [0.0, 1.0]) == [1]


def test_in_a_box_only_volume_inside_it_counts():
    box = np.array([[-np.inf, 0.2], [np.inf, 0.6]])
    costs = np.array([[-0.5, 0.7], [0.2, 0.55], [0.35, 0.3], [0.9, 0.1]])
    faster_but_bad = np.array([[0.8, 0.1]])
    for front in (FRONT[:1], np.concatenate([FRONT[:1], faster_but_bad])):
        first = greedy_batch(costs, front, 1, box=box)
        # In the box, 0.4 high, accuracies below 0.9 count: what lies above it adds nothing, whatever its accuracy.
        assert first == [2] == optimistic_batch(costs, np.zeros_like(costs), front, [0.0], box=box)
        assert 0 not in greedy_batch(costs, front, 4, box=box)
    dominating = np.array([[0.1, 0.1]])  # left of the box, yet better than all inside
    assert greedy_batch(costs, dominating, 4, box=box) == []


@pytest.mark.parametrize("num_front", [0, 1])
def test_batch_without_a_front_is_spread(num_front):
    costs = np.array([[0.0, 1.0], [0.01, 0.99], [0.5, 0.4], [1.0, 0.0]])
    assert len(set(optimistic_batch(costs, np.zeros((4, 2)), FRONT[:num_front], [0.0] * 3))) == 3


def test_likeliest_on_the_front_are_those_that_most_draws_leave_undominated():
    beaten, near, sure = [0.5, 0.6], [0.3, 0.6], [0.2, 0.6]
    draws = [np.array([beaten, near, sure])] * 2 + [np.array([beaten, near, [0.9, 0.9]])]
    assert likely_batch(draws, FRONT, 2) == [2, 1]
    assert likely_batch(draws, np.zeros((0, 2)), 1) == [2]
    assert likely_batch([np.array([beaten, [0.39, 0.51]])], FRONT, 2) == [1, 0]
