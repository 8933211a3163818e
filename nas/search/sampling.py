"""Candidates drawn at random, never one that is known already."""

import numpy as np

from nas.search.objectives import violations
from nas.search.problem import SearchProblem, distinct, outside

MAX_ENUMERATED = 20_000
"""A space of up to this many genotypes is listed in full instead of sampled."""
_NUM_ROUNDS = 30
"""Rounds of sampling before a space counts as exhausted."""


def random_vectors(problem: SearchProblem, num: int, *, rng: np.random.Generator) -> np.ndarray:
    """`num` canonical vectors, each gene uniform over its values; may repeat."""
    vectors = rng.integers(0, problem.sizes, size=(num, len(problem.sizes)))
    return problem.canonicalise(vectors)


def sample_new(
    problem: SearchProblem, num: int, *, known: np.ndarray, rng: np.random.Generator, feasible: bool = True
) -> np.ndarray:
    """Up to `num` distinct canonical vectors that are no rows of `known`; fewer when no more were found.

    With `feasible`, only those that keep the constraints which can be checked without measuring.
    """
    if problem.num_raw <= MAX_ENUMERATED:
        vectors = _allowed(problem, problem.enumerate(), feasible=feasible)
        vectors = vectors[outside(vectors, known)]
        return vectors[rng.permutation(len(vectors))[:num]]
    found = np.empty((0, len(problem.sizes)), np.int64)
    for _ in range(_NUM_ROUNDS):
        drawn = _allowed(problem, distinct(random_vectors(problem, 4 * num, rng=rng)), feasible=feasible)
        found = distinct(np.concatenate([found, drawn[outside(drawn, known)]]))
        if len(found) >= num:
            break
    return found[:num]


def initial_vectors(problem: SearchProblem) -> np.ndarray:
    """The distinct canonical vectors of the problem's initial genotypes that keep the cheap constraints."""
    return _allowed(problem, distinct(problem.canonicalise(problem.encode(problem.initial))), feasible=True)


def _allowed(problem: SearchProblem, vectors: np.ndarray, *, feasible: bool) -> np.ndarray:
    """The rows of `vectors` that keep the cheap constraints, where that is asked for."""
    if not feasible or not problem.cheap_constraints or len(vectors) == 0:
        return vectors
    excess = violations(problem.compute_cheap(vectors), problem.cheap_constraints)
    return vectors[(excess <= 0).all(axis=1)]
