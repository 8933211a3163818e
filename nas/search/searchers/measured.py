"""What the complete rows of a history say, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.search.objectives import as_costs, violations
from nas.search.pareto import nondominated_layers
from nas.search.problem import SearchProblem
from nas.search.study import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """N measured candidates in order of evaluation."""

    vectors: np.ndarray
    """N x (number of choices) indices."""
    values: dict[str, np.ndarray]
    """Objective name -> N values."""
    costs: np.ndarray
    """N x (number of objectives), lower is better."""
    excess: np.ndarray
    """N x (number of constraints) violations; kept where <= 0."""

    @classmethod
    def of(cls, problem: SearchProblem, history: Sequence[Row]) -> "Measured":
        """The rows of `history` that did not fail."""
        rows = [row for row in history if row.state == "complete"]
        vectors = problem.encode([row.genotype for row in rows])
        values = {o.name: np.array([row.values[o.name] for row in rows], float) for o in problem.objectives}
        known = {**problem.compute_cheap(vectors), **values} if problem.constraints else values
        return cls(
            vectors=vectors,
            values=values,
            costs=as_costs(values, problem.objectives),
            excess=violations(known, problem.constraints),
        )

    @property
    def keeps(self) -> np.ndarray:
        """Mask of the candidates that keep all constraints."""
        return np.all(self.excess <= 0, axis=1)

    def layers(self, rows: np.ndarray) -> np.ndarray:
        """For each of `rows` the number of its non-dominated layer among them, 0 the best; violators rank last."""
        layer = np.full(len(rows), len(rows))
        keeps = self.keeps[rows]
        layer[keeps] = nondominated_layers(self.costs[rows[keeps]])
        return layer
