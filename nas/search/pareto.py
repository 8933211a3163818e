"""Pareto tools: the front of a study, its hypervolume, its knee."""

from bisect import bisect_right
from collections.abc import Sequence

import moocore  # type: ignore[import-untyped]
import numpy as np
import pandas as pd

from nas.search.objectives import Constraint, Objective, as_costs, violations


def is_nondominated(costs: np.ndarray) -> np.ndarray:
    """Mask of the rows of `costs` (N x M, lower is better) that no other row dominates; of equal rows, the first."""
    if len(costs) == 0:
        return np.zeros(0, bool)
    return moocore.is_nondominated(costs)


def nondominated_layers(costs: np.ndarray, num: int | None = None) -> np.ndarray:
    """For each row of `costs` (N x M, lower is better) the number of its non-dominated layer, 0 the best.

    Of equal rows each is in a layer of its own. Where `num` is given and objectives are more than two, rows beyond the
    first layers that hold `num` of them are all given the next layer.
    """
    if costs.shape[1] == 2:
        return _layers_of_two(costs)
    layer, rest, number = np.zeros(len(costs), np.int64), np.arange(len(costs)), 0
    while len(rest):
        best = is_nondominated(costs[rest])
        layer[rest] = number
        rest, number = rest[~best], number + 1
        if num is not None and len(costs) - len(rest) >= num:
            layer[rest] = number
            break
    return layer


def hypervolume(costs: np.ndarray, reference: np.ndarray) -> float:
    """Volume that the rows of `costs` (N x M, lower is better) dominate below `reference`; higher is better."""
    if len(costs) == 0:
        return 0.0
    return float(moocore.hypervolume(costs, ref=reference))


def _layers_of_two(costs: np.ndarray) -> np.ndarray:
    """In order of the first objective a row joins the first layer whose lowest second value it undercuts."""
    layer = np.empty(len(costs), np.int64)
    lowest: list[float] = []  # of each layer, ascending
    order = np.lexsort((costs[:, 1], costs[:, 0]))
    for row, value in zip(order.tolist(), costs[order, 1].tolist(), strict=True):
        number = bisect_right(lowest, value)
        layer[row] = number
        lowest[number : number + 1] = [value]
    return layer


def on_front(
    frame: pd.DataFrame, objectives: Sequence[Objective], constraints: Sequence[Constraint] = ()
) -> np.ndarray:
    """Mask of the rows that no other row dominates, among those that have all objectives and keep all constraints."""
    costs = as_costs(frame, objectives)
    eligible = np.isfinite(costs).all(axis=1)
    if constraints:
        eligible &= (violations(frame, constraints) <= 0).all(axis=1)
    mask = np.zeros(len(frame), bool)
    mask[np.flatnonzero(eligible)] = is_nondominated(costs[eligible])
    return mask


def pareto_front(
    frame: pd.DataFrame, objectives: Sequence[Objective], constraints: Sequence[Constraint] = ()
) -> pd.DataFrame:
    """The rows of `frame` that are `on_front`, sorted by the first objective, best first."""
    front = frame[on_front(frame, objectives, constraints)]
    return front.sort_values(objectives[0].name, ascending=not objectives[0].maximize, kind="stable")


def knee(costs: np.ndarray) -> int:
    """Row of a front (N x M, lower is better) that bulges most towards the ideal point.

    It is the point furthest from the hyperplane through the extremes, each objective scaled to the front's range
    (Das 1999, "On characterizing the knee of the Pareto curve").
    """
    if len(costs) == 0:
        raise ValueError("an empty front has no knee")
    low, high = costs.min(axis=0), costs.max(axis=0)
    scaled = (costs - low) / np.where(high > low, high - low, 1.0)
    return int(scaled.sum(axis=1).argmin())
