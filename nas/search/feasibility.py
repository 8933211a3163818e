"""Constraints that can be checked without measuring: is there any candidate that keeps them?"""

import numpy as np

from nas.errors import UserError
from nas.search.evolution import evolve
from nas.search.objectives import Constraint
from nas.search.problem import SearchProblem
from nas.search.sampling import MAX_ENUMERATED, anchor_vectors, feasible, feasible_vectors


def check_feasible(problem: SearchProblem, *, rng: np.random.Generator) -> None:
    """Raise `UserError`, with the best value there is, when no candidate is found that keeps the cheap constraints."""
    if not problem.cheap_constraints:
        return
    if len(feasible(problem, anchor_vectors(problem, rng=rng))) or len(feasible_vectors(problem, rng=rng)):
        return
    for constraint in problem.cheap_constraints:
        best = best_value(problem, constraint, rng=rng)
        if constraint.violation(best) > 0:
            extreme = "lowest" if constraint.op == "<=" else "highest"
            raise UserError(
                f"no candidate meets {constraint}: the {extreme} {constraint.objective} found is {best:.6g}; "
                "loosen the bound"
            )
    names = " and ".join(str(c) for c in problem.cheap_constraints)
    raise UserError(f"no candidate meets {names} together, though each alone can be met; loosen one of them")


def best_value(problem: SearchProblem, constraint: Constraint, *, rng: np.random.Generator) -> float:
    """The value of the constrained cheap column that comes nearest to keeping the bound, or keeps it best."""

    def score(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = problem.compute_cheap(vectors)[constraint.objective]
        return constraint.violation(values)[:, None], np.zeros((len(vectors), 0))

    if problem.num_raw <= MAX_ENUMERATED:
        vectors = problem.enumerate()
        costs = score(vectors)[0]
    else:
        pool = evolve(problem, score, start=anchor_vectors(problem, rng=rng), rng=rng)
        vectors, costs = pool.vectors, pool.costs
    best = vectors[costs[:, 0].argmin()]
    return float(problem.compute_cheap(best[None])[constraint.objective][0])
