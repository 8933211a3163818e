import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nas.search import Constraint, Objective
from nas.search.acquisition import greedy_batch
from nas.search.pareto import hypervolume, is_nondominated, knee, nondominated_layers, on_front, pareto_front

POINTS = st.integers(2, 3).flatmap(
    lambda m: st.integers(1, 12).flatmap(lambda n: arrays(float, (n, m), elements=st.integers(0, 5).map(float)))
)


@given(POINTS)
def test_front_is_what_no_other_row_dominates(costs):
    mask = is_nondominated(costs)
    for row, kept in zip(costs, mask, strict=True):
        dominated = ((costs <= row).all(axis=1) & (costs < row).any(axis=1)).any()
        assert not (kept and dominated)
        assert kept or dominated or (costs == row).all(axis=1).sum() > 1
    assert len(np.unique(costs[mask], axis=0)) == mask.sum()


@given(POINTS)
def test_a_layer_is_the_front_of_what_the_layers_before_leave(costs):
    layers = nondominated_layers(costs)
    rest = np.arange(len(costs))
    for number in range(layers.max() + 1):
        best = is_nondominated(costs[rest])
        assert layers[rest].tolist() == np.where(best, number, layers[rest]).tolist()
        assert (layers[rest[~best]] > number).all()
        rest = rest[~best]
    assert len(rest) == 0
    few = nondominated_layers(costs, 3)
    assert (np.sort(few)[:3] == np.sort(layers)[:3]).all()


@given(POINTS)
def test_hypervolume_counts_dominated_unit_cells(costs):
    cells = np.stack(np.meshgrid(*[np.arange(6)] * costs.shape[1]), axis=-1).reshape(-1, costs.shape[1])
    expected = sum((costs <= cell).all(axis=1).any() for cell in cells)
    assert hypervolume(costs, np.full(costs.shape[1], 6.0)) == pytest.approx(expected)


def test_rows_that_failed_or_break_a_constraint_are_not_on_the_front():
    frame = pd.DataFrame({"accuracy": [90.0, 80.0, np.nan, 70.0], "latency_ms": [3.0, 2.0, 1.0, 2.5]})
    objectives = [Objective("accuracy", maximize=True), Objective("latency_ms")]
    assert on_front(frame, objectives).tolist() == [True, True, False, False]
    limit = Constraint(objective="latency_ms", op="<=", bound=2.5)
    assert on_front(frame, objectives, [limit]).tolist() == [False, True, False, False]
    assert pareto_front(frame, objectives)["accuracy"].tolist() == [90.0, 80.0]


def test_knee_is_the_point_that_bulges_most_whatever_the_units():
    front = np.array([[0.0, 10.0], [1.0, 2.0], [5.0, 1.0], [10.0, 0.0]])
    assert knee(front) == 1
    assert knee(front * [1000, 0.1]) == 1
    assert knee(front[:1]) == 0
    with pytest.raises(ValueError, match="empty front"):
        knee(front[:0])


def test_greedy_batch_takes_the_largest_gain_at_every_step():
    rng = np.random.default_rng(0)
    for num_objectives in (2, 3):
        costs, front = rng.random((40, num_objectives)), rng.random((6, num_objectives)) + 0.3
        front = front[is_nondominated(front)]
        together = np.concatenate([front, costs])
        best = together[is_nondominated(together)]
        low, span = best.min(axis=0), np.ptp(best, axis=0)
        reference, known, expected = np.full(num_objectives, 1.1), (front - low) / span, []
        scaled = (costs - low) / span
        for _ in range(5):
            volumes = [hypervolume(np.vstack([known, row]), reference) for row in scaled]
            if max(volumes) < hypervolume(known, reference) + 1e-9:
                break
            expected.append(int(np.argmax(volumes)))
            known = np.vstack([known, scaled[expected[-1]]])
        assert greedy_batch(costs, front, 5) == expected


def test_greedy_batch_ends_when_nothing_adds_to_the_front():
    front = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert greedy_batch(np.array([[2.0, 2.0], [0.2, 0.2], [0.3, 0.3]]), front, 3) == [1]
