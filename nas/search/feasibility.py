"""Constraints that can be checked without measuring: is there any candidate that keeps them?"""

import numpy as np

from nas.errors import UserError
from nas.search.evolution import evolve
from nas.search.objectives import Constraint, violations
from nas.search.problem import SearchProblem
from nas.search.sampling import MAX_ENUMERATED, initial_vectors, random_vectors

_NUM_SAMPLES = 200


def check_feasible(problem: SearchProblem, *, rng: np.random.Generator) -> None:
    """Raise `UserError`, with the best value there is, when no candidate is found that keeps the cheap constraints."""
    if not problem.cheap_constraints:
        return
    if len(initial_vectors(problem)) or len(feasible_vectors(problem, 1, rng=rng)):
        return
    for constraint in problem.cheap_constraints:
        best = _best_value(problem, constraint, rng=rng)
        if constraint.violation(best) > 0:
            extreme = "lowest" if constraint.op == "<=" else "highest"
            raise UserError(
                f"no candidate meets {constraint}: the {extreme} {constraint.objective} found is {best:.6g}; "
                "loosen the bound"
            )
    names = " and ".join(str(c) for c in problem.cheap_constraints)
    raise UserError(f"no candidate meets {names} together, though each alone can be met; loosen one of them")


def feasible_vectors(problem: SearchProblem, num: int, *, rng: np.random.Generator) -> np.ndarray:
    """Distinct canonical vectors that keep the cheap constraints: at least `num` where so many were found."""
    found = _keep(problem, corner_and_random_vectors(problem, rng=rng))
    if len(found) >= num or problem.num_raw <= MAX_ENUMERATED:
        return found
    constraints = problem.cheap_constraints

    def score(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        excess = np.maximum(violations(problem.compute_cheap(vectors), constraints), 0.0)
        return excess.sum(axis=1, keepdims=True), np.zeros((len(vectors), 0))

    pool = evolve(problem, score, start=corner_and_random_vectors(problem, rng=rng), rng=rng)
    return pool.vectors[pool.costs[:, 0] <= 0]


def corner_and_random_vectors(problem: SearchProblem, *, rng: np.random.Generator) -> np.ndarray:
    """The initial candidates, all-first and all-last values, and a random sample; in a small space, everything."""
    if problem.num_raw <= MAX_ENUMERATED:
        return problem.enumerate()
    corners = problem.canonicalise(np.stack([np.zeros_like(problem.sizes), problem.sizes - 1]))
    initial = problem.canonicalise(problem.encode(problem.initial))
    return np.unique(np.concatenate([corners, initial, random_vectors(problem, _NUM_SAMPLES, rng=rng)]), axis=0)


def _keep(problem: SearchProblem, vectors: np.ndarray) -> np.ndarray:
    excess = violations(problem.compute_cheap(vectors), problem.cheap_constraints)
    return vectors[(excess <= 0).all(axis=1)]


def _best_value(problem: SearchProblem, constraint: Constraint, *, rng: np.random.Generator) -> float:
    """The value of the constrained column that comes nearest to keeping the bound."""
    start = corner_and_random_vectors(problem, rng=rng)

    def score(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = problem.compute_cheap(vectors)[constraint.objective]
        return constraint.violation(values)[:, None], np.zeros((len(vectors), 0))

    if problem.num_raw <= MAX_ENUMERATED:
        best = start[score(start)[0][:, 0].argmin()]
    else:
        pool = evolve(problem, score, start=start, rng=rng)
        best = pool.vectors[pool.costs[:, 0].argmin()]
    return float(problem.compute_cheap(best[None])[constraint.objective][0])
