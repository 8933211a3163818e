"""Which candidates to measure next: those whose predicted values add most hypervolume, or are likeliest on the front.

With two objectives a batch is optimistic: every candidate is looked at, and some members are given the benefit of the
doubt, so the search explores. With three or more it is greedy, because each gain costs a hypervolume: expected values
count, of 400 candidates, and uncertainty only where none of them seems to improve the front. So it explores less.
"""

import heapq
from collections.abc import Iterable, Sequence

import numpy as np

from nas.search.pareto import hypervolume, is_nondominated, nondominated_layers

_NUM_CONSIDERED = 400
"""Candidates considered for a batch, best non-dominated layers first."""
_REFERENCE = 1.1
"""Reference point of the hypervolume, where the front of measured and predicted candidates spans 0 to 1."""
_MIN_GAIN = 1e-9


def greedy_batch(costs: np.ndarray, front: np.ndarray, num: int, *, box: np.ndarray | None = None) -> list[int]:
    """Rows of `costs` (N x M, predicted, lower is better), each adding most to the hypervolume of those before it.

    Spread comes by itself: what lies near a chosen row adds little. Fewer than `num` rows when no other adds anything.
    The gains can only shrink as rows are chosen, so a row whose fresh gain still leads needs no comparison
    (lazy greedy, Minoux 1978).

    Args:
        costs: predicted values of candidates.
        front: measured values (K x M) that are already there; may be empty.
        num: size of the batch.
        box: lowest and highest cost of each objective (2 x M, infinite where open) between which volume counts.
    """
    chosen_costs, scaled = _scaled(front, costs, box)
    reference = np.full(costs.shape[1], _REFERENCE)
    total = hypervolume(chosen_costs, reference)
    heap = [(-np.inf, int(row)) for row in best_layers(scaled, _NUM_CONSIDERED)]
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


def optimistic_batch(
    costs: np.ndarray,
    std: np.ndarray,
    front: np.ndarray,
    optimism: Sequence[float],
    *,
    box: np.ndarray | None = None,
) -> list[int]:
    """Rows of `costs`, each adding most to the hypervolume of those before it when given some benefit of the doubt.

    Two objectives only; all candidates are looked at. Rows chosen before count with the same benefit, so the batch
    spreads. Fewer rows when no other adds anything.

    Args:
        costs: expected values of candidates (N x 2, lower is better).
        std: standard deviations of `costs`; zero where a value is known.
        front: measured values (K x 2) that are already there; may be empty.
        optimism: standard deviations granted to each member of the batch in turn.
        box: as in `greedy_batch`.
    """
    hopes = {level: _scaled(front, costs - level * std, box) for level in dict.fromkeys(optimism)}
    chosen: list[int] = []
    for level in optimism:
        points, hoped = hopes[level]
        gains = _gains(hoped, np.concatenate([points, hoped[chosen]]))
        gains[chosen] = 0.0
        row = int(gains.argmax())
        if gains[row] > _MIN_GAIN:
            chosen.append(row)
    return chosen


def likely_batch(draws: Iterable[np.ndarray], front: np.ndarray, num: int) -> list[int]:
    """The `num` rows that no other row and nothing measured dominates in most of the draws, the likeliest first.

    Args:
        draws: what N candidates may cost, jointly (each N x M, lower is better).
        front: measured values (K x M) that are already there; may be empty.
        num: size of the batch.
    """
    counts = sum(is_nondominated(np.concatenate([front, costs]))[len(front) :].astype(int) for costs in draws)
    return np.argsort(-np.asarray(counts), kind="stable")[:num].tolist()


def best_layers(costs: np.ndarray, num: int) -> np.ndarray:
    """Rows of the first non-dominated layers, up to `num` of them."""
    return np.argsort(nondominated_layers(costs, num), kind="stable")[:num]


def _gains(costs: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Hypervolume that each row of `costs` (N x 2) alone would add to `points`, strip by strip between the points."""
    points = points[(points < _REFERENCE).all(axis=1)]
    points = points[is_nondominated(points)]
    points = points[np.argsort(points[:, 0])]
    right = np.maximum(np.append(points[:, 0], _REFERENCE) - costs[:, :1], 0.0)
    height = np.maximum(np.insert(points[:, 1], 0, _REFERENCE) - costs[:, 1:], 0.0)
    return (np.diff(right, axis=1, prepend=0.0) * height).sum(axis=1)


def _scaled(front: np.ndarray, costs: np.ndarray, box: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Both in units of the range of the front that they have together, so that what extends it counts.

    Where a box is closed it is the range, and ends at the reference point; what is better than its best end is there.
    """
    if box is not None:
        front, costs = np.maximum(front, box[0]), np.maximum(costs, box[0])
    together = np.concatenate([front, costs])
    if box is not None and (inside := (together <= box[1]).all(axis=1)).any():
        together = together[inside]
    best = together[is_nondominated(together)]
    low, high = best.min(axis=0), best.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    if box is not None:
        closed = np.isfinite(box).all(axis=0)
        low, span = np.where(closed, box[0], low), np.where(closed, (box[1] - box[0]) / _REFERENCE, span)
    return (front - low) / span, (costs - low) / span
