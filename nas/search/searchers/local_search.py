"""Pareto local search (Paquete et al. 2004; White et al. 2021, "Exploring the Loss Landscape in NAS")."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.search.problem import SearchProblem, distinct, outside
from nas.search.sampling import feasible
from nas.search.searchers.filling import full_batch
from nas.search.searchers.interface import Suggestion
from nas.search.searchers.measured import Measured
from nas.search.study import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSearch:
    """Measures neighbours, one gene away, of the members of the front; random candidates when none is left."""

    num_random: int = 20
    """Candidates drawn at random first."""

    def ask(
        self, problem: SearchProblem, history: Sequence[Row], *, num_candidates: int, rng: np.random.Generator
    ) -> list[Suggestion]:
        def neighbours(measured: Measured, known: np.ndarray) -> np.ndarray:
            if len(measured.vectors) < self.num_random:
                return known[:0]
            layer = measured.layers(np.arange(len(measured.vectors)))
            around = neighbour_vectors(problem, measured.vectors[layer == layer.min()])
            return rng.permutation(feasible(problem, around[outside(around, known)]))

        return full_batch(problem, history, neighbours, num_candidates=num_candidates, rng=rng)


def neighbour_vectors(problem: SearchProblem, vectors: np.ndarray) -> np.ndarray:
    """All distinct canonical vectors that differ from one of `vectors` in one gene."""
    changed = [vectors[:0]]
    for gene, size in enumerate(problem.sizes):
        for step in range(1, size):
            moved = vectors.copy()
            moved[:, gene] = (moved[:, gene] + step) % size
            changed.append(moved)
    return distinct(problem.canonicalise(np.concatenate(changed)))
