"""Candidates drawn without looking at measurements: new ones, which keep the constraints that can be computed."""

import numpy as np

from nas.search.evolution import evolve
from nas.search.objectives import violations
from nas.search.problem import SearchProblem, distinct, outside
from search_spaces.space import draw_indices

MAX_ENUMERATED = 20_000
"""A space of up to this many genotypes is listed in full instead of sampled."""
_NUM_ROUNDS = 30
"""Rounds of sampling before a space counts as exhausted."""
_NUM_SAMPLES = 200


def random_vectors(problem: SearchProblem, num: int, *, rng: np.random.Generator, tilt: float = 0.0) -> np.ndarray:
    """`num` canonical vectors, which may repeat; `tilt` is that of `draw_indices`."""
    return problem.canonicalise(draw_indices(problem.sizes, num, rng=rng, tilt=tilt))


def sample_new(problem: SearchProblem, num: int, *, known: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Up to `num` distinct canonical vectors that are no rows of `known`; fewer when no more were found."""
    if num <= 0:
        return known[:0]
    if problem.num_raw <= MAX_ENUMERATED:
        vectors = feasible(problem, problem.enumerate())
        vectors = vectors[outside(vectors, known)]
        return vectors[rng.permutation(len(vectors))[:num]]
    found = known[:0]
    for _ in range(_NUM_ROUNDS):
        drawn = feasible(problem, distinct(random_vectors(problem, 4 * num, rng=rng)))
        found = distinct(np.concatenate([found, drawn[outside(drawn, known)]]))
        if len(found) >= num:
            return found[:num]
    rare = feasible_vectors(problem, rng=rng)
    rare = rare[outside(rare, np.concatenate([known, found]))]
    return np.concatenate([found, rng.permutation(rare)])[:num]


def spread_new(
    problem: SearchProblem, num: int, *, known: np.ndarray, start: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Up to `num` new vectors, each as different (in number of genes) as can be from `start` and those before it."""
    if num <= 0:
        return known[:0]
    everything = np.concatenate([known, start])
    pool = distinct(random_vectors(problem, _NUM_SAMPLES + 4 * num, rng=rng, tilt=1.0))
    pool = feasible(problem, pool)
    pool = pool[outside(pool, everything)]
    if len(pool) < num:
        more = sample_new(problem, num - len(pool), known=np.concatenate([everything, pool]), rng=rng)
        pool = np.concatenate([pool, more])
    nearest = np.full(len(pool), len(problem.sizes) + 1)
    for vector in start:
        nearest = np.minimum(nearest, (pool != vector).sum(axis=1))
    chosen: list[int] = []
    while len(chosen) < min(num, len(pool)):
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, (pool != pool[chosen[-1]]).sum(axis=1))
        nearest[chosen] = -1
    return pool[chosen]


def corner_vectors(problem: SearchProblem) -> np.ndarray:
    """The distinct canonical vectors of all first, all last and all middle values."""
    corners = np.stack([np.zeros_like(problem.sizes), problem.sizes - 1, problem.sizes // 2])
    return distinct(problem.canonicalise(corners))


def initial_vectors(problem: SearchProblem) -> np.ndarray:
    """The distinct canonical vectors of the problem's initial genotypes that keep the cheap constraints."""
    return feasible(problem, distinct(problem.canonicalise(problem.encode(problem.initial))))


def feasible(problem: SearchProblem, vectors: np.ndarray) -> np.ndarray:
    """The rows of `vectors` that keep the constraints which can be checked without measuring."""
    if not problem.cheap_constraints or len(vectors) == 0:
        return vectors
    excess = violations(problem.compute_cheap(vectors), problem.cheap_constraints)
    return vectors[(excess <= 0).all(axis=1)]


def feasible_vectors(problem: SearchProblem, *, rng: np.random.Generator) -> np.ndarray:
    """Distinct canonical vectors that keep the cheap constraints, by evolution where they are rare; maybe none."""
    if problem.num_raw <= MAX_ENUMERATED:
        return feasible(problem, problem.enumerate())
    start = anchor_vectors(problem, rng=rng)
    if not problem.cheap_constraints:
        return start

    def score(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        excess = violations(problem.compute_cheap(vectors), problem.cheap_constraints)
        return np.maximum(excess, 0.0).sum(axis=1, keepdims=True), np.zeros((len(vectors), 0))

    pool = evolve(problem, score, start=start, rng=rng)
    return pool.vectors[pool.costs[:, 0] <= 0]


def anchor_vectors(problem: SearchProblem, *, rng: np.random.Generator) -> np.ndarray:
    """Where a search of the extremes begins: corners, initial candidates and a random sample, distinct."""
    initial = problem.canonicalise(problem.encode(problem.initial))
    drawn = random_vectors(problem, _NUM_SAMPLES, rng=rng, tilt=2.0)
    return distinct(np.concatenate([corner_vectors(problem), initial, drawn]))
