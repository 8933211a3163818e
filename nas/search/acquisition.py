"""Which candidates to measure next: the batch whose predicted values add most hypervolume."""

import heapq
from collections.abc import Sequence

import numpy as np

from nas.search.pareto import hypervolume, is_nondominated

_NUM_CONSIDERED = 400
"""Candidates considered for a batch, best non-dominated layers first."""
_REFERENCE = 1.1
"""Reference point of the hypervolume, where the measured front spans 0 to 1 in each objective."""
_MIN_GAIN = 1e-9


def greedy_batch(costs: np.ndarray, front: np.ndarray, num: int) -> list[int]:
    """Rows of `costs` (N x M, predicted, lower is better), each adding most to the hypervolume of those before it.

    Spread comes by itself: what lies near a chosen row adds little. Fewer than `num` rows when no other adds anything.
    The gains can only shrink as rows are chosen, so a row whose fresh gain still leads needs no comparison
    (lazy greedy, Minoux 1978).

    Args:
        costs: predicted values of candidates.
        front: measured values (K x M) that are already there; may be empty.
        num: size of the batch.
    """
    low, span = _range(front if len(front) > 1 else np.concatenate([front, costs]))
    chosen_costs, scaled = (front - low) / span, (costs - low) / span
    reference = np.full(costs.shape[1], _REFERENCE)
    total = hypervolume(chosen_costs, reference)
    heap = [(-np.inf, int(row)) for row in _best_layers(scaled, _NUM_CONSIDERED)]
    fresh: set[int] = set()
    chosen: list[int] = []
    while heap and len(chosen) < num:
        gain, row = heapq.heappop(heap)
        if row in fresh:
            if -gain <= _MIN_GAIN:
                break
            chosen.append(row)
            chosen_costs = np.concatenate([chosen_costs, scaled[row : row + 1]])
            total -= gain
            fresh.clear()
            continue
        fresh.add(row)
        heapq.heappush(
            heap, (total - hypervolume(np.concatenate([chosen_costs, scaled[row : row + 1]]), reference), row)
        )
    return chosen


def optimistic_batch(costs: np.ndarray, std: np.ndarray, front: np.ndarray, optimism: Sequence[float]) -> list[int]:
    """Rows of `costs`, each adding most to the hypervolume of those before it when given some benefit of the doubt.

    Two objectives only; all candidates are looked at. A chosen row counts at its optimistic value from then on, so the
    batch spreads. Fewer rows when no other adds anything.

    Args:
        costs: expected values of candidates (N x 2, lower is better).
        std: standard deviations of `costs`; zero where a value is known.
        front: measured values (K x 2) that are already there; may be empty.
        optimism: standard deviations granted to each member of the batch in turn.
    """
    low, span = _range(front if len(front) > 1 else np.concatenate([front, costs]))
    points, scaled, scaled_std = (front - low) / span, (costs - low) / span, std / span
    chosen: list[int] = []
    for level in optimism:
        hoped = scaled - level * scaled_std
        gains = _gains(hoped, points)
        gains[chosen] = 0.0
        row = int(gains.argmax())
        if gains[row] > _MIN_GAIN:
            chosen.append(row)
            points = np.concatenate([points, hoped[row : row + 1]])
    return chosen


def _gains(costs: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Hypervolume that each row of `costs` (N x 2) alone would add to `points`, strip by strip between the points."""
    points = points[(points < _REFERENCE).all(axis=1)]
    points = points[is_nondominated(points)]
    points = points[np.argsort(points[:, 0])]
    right = np.maximum(np.append(points[:, 0], _REFERENCE) - costs[:, :1], 0.0)
    height = np.maximum(np.insert(points[:, 1], 0, _REFERENCE) - costs[:, 1:], 0.0)
    return (np.diff(right, axis=1, prepend=0.0) * height).sum(axis=1)


def _range(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = costs.min(axis=0), costs.max(axis=0)
    return low, np.where(high > low, high - low, 1.0)


def _best_layers(costs: np.ndarray, num: int) -> np.ndarray:
    """Rows of the first non-dominated layers, up to `num` of them."""
    rest, rows = np.arange(len(costs)), np.zeros(0, np.int64)
    while len(rest) and len(rows) < num:
        layer = is_nondominated(costs[rest])
        rows, rest = np.concatenate([rows, rest[layer]]), rest[~layer]
    return rows[:num]
