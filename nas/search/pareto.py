"""Pareto tools: the front of a study, its hypervolume, its knee."""

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


def hypervolume(costs: np.ndarray, reference: np.ndarray) -> float:
    """Volume that the rows of `costs` (N x M, lower is better) dominate below `reference`; higher is better."""
    if len(costs) == 0:
        return 0.0
    return float(moocore.hypervolume(costs, ref=reference))


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
