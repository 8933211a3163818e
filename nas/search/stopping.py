"""When a search ends: after so many evaluations, after some time, or when its hypervolume has stopped growing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.errors import UserError
from nas.search.objectives import as_costs, focus_box, violations
from nas.search.pareto import hypervolume
from nas.search.problem import SearchProblem
from nas.search.study import Row

MIN_GROWTH = 0.001
"""Relative growth of the hypervolume below which it counts as not growing."""

_REFERENCE = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRule:
    """The search ends with the first of these that is met."""

    num_evaluations: int
    """Rows in all, failed ones included."""
    seconds: float | None = None
    """No evaluation begins later than this after the start of the call; those that go on are finished."""
    patience: int | None = None
    """End when the hypervolume (`HypervolumeMeasure`) grew by less than `min_growth` of itself in so many evaluations.

    Looked at between batches, so what a seed gives does not depend on who evaluates.
    """
    min_growth: float = MIN_GROWTH

    def __post_init__(self) -> None:
        if self.num_evaluations < 1:
            raise UserError(f"num_evaluations={self.num_evaluations} must be 1 or more")
        if self.seconds is not None and self.seconds <= 0:
            raise UserError(f"a time limit of {self.seconds:g} s must be more than 0")
        if self.patience is not None and self.patience < 1:
            raise UserError(f"patience={self.patience} must be 1 or more evaluations")

    def has_stopped_growing(self, problem: SearchProblem, rows: Sequence[Row]) -> bool:
        """Whether the last `patience` of `rows`, whole batches in order of evaluation, brought too little."""
        if self.patience is None or len(rows) <= self.patience:
            return False
        volume = HypervolumeMeasure(problem, rows)
        before = volume(rows[: -self.patience])
        return before > 0 and volume(rows) < (1 + self.min_growth) * before


class HypervolumeMeasure:
    """The volume that a front dominates, in units that are fixed by the first batch in which something was measured.

    Each objective is shifted and scaled so that the best value up to that batch is 0 and the worst 1; the reference
    point is 1.1 in each. So it never shrinks, and is comparable within one search only. Where there is a focus, 0 is
    its better end and 1.1 its worse one: nothing beyond the one is better, and nothing beyond the other counts.
    """

    def __init__(self, problem: SearchProblem, rows: Sequence[Row]) -> None:
        self._problem = problem
        first = next((row.batch for row in rows if not row.reason), -1)
        self.is_fixed = any(row.batch > first >= 0 for row in rows)
        """Whether that batch is complete; before, the unit still changes."""
        self._low: np.ndarray | None = None
        costs = self._costs([row for row in rows if row.batch <= first])
        if len(costs):
            width, box = np.ptp(costs, axis=0), focus_box(problem.focus, problem.objectives)
            has_focus = np.isfinite(box).all(axis=0)
            self._low = np.where(has_focus, box[0], costs.min(axis=0))
            self._width = np.where(has_focus, np.diff(box, axis=0)[0] / _REFERENCE, np.where(width > 0, width, 1.0))
            self._best = box[0]

    def __call__(self, rows: Sequence[Row]) -> float:
        """Hypervolume of the complete rows that keep the constraints; 0 without any."""
        if self._low is None:
            return 0.0
        costs = np.maximum(self._costs(self._keeping(rows)), self._best)
        return hypervolume((costs - self._low) / self._width, np.full(len(self._low), _REFERENCE))

    def _costs(self, rows: Sequence[Row]) -> np.ndarray:
        objectives = self._problem.objectives
        complete = [row for row in rows if not row.reason]
        values = {o.name: np.array([row.values[o.name] for row in complete], float) for o in objectives}
        return as_costs(values, objectives)

    def _keeping(self, rows: Sequence[Row]) -> list[Row]:
        complete = [row for row in rows if not row.reason]
        names = {c.objective for c in self._problem.constraints}
        values = {n: np.array([{**r.extras, **r.values}[n] for r in complete], float) for n in names}
        if not names:
            return complete
        keeps = np.asarray((violations(values, self._problem.constraints) <= 0).all(axis=1))
        return [row for row, keep in zip(complete, keeps, strict=True) if keep]
