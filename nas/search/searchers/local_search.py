"""Pareto local search (Paquete et al. 2004; White et al. 2021, "Exploring the Loss Landscape in NAS")."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.search.problem import SearchProblem, distinct, outside
from nas.search.sampling import feasible, initial_vectors, sample_new
from nas.search.searchers.interface import Suggestion
from nas.search.searchers.measured import Measured
from nas.search.study import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSearch:
    """Measures neighbours, one gene away, of the members of the front; random candidates before and when none is left."""

    num_random: int = 20
    """Candidates drawn at random first."""

    def ask(
        self, problem: SearchProblem, history: Sequence[Row], *, num_candidates: int, rng: np.random.Generator
    ) -> list[Suggestion]:
        known = problem.encode([row.genotype for row in history])
        batch = initial_vectors(problem)[:num_candidates] if not history else known[:0]
        measured = Measured.of(problem, history)
        if len(measured.vectors) >= self.num_random:
            layer = measured.layers(np.arange(len(measured.vectors)))
            around = neighbour_vectors(problem, measured.vectors[layer == layer.min()])
            around = feasible(problem, around[outside(around, known)])
            batch = rng.permutation(around)[:num_candidates]
        everything = np.concatenate([known, batch])
        rest = sample_new(problem, num_candidates - len(batch), known=everything, rng=rng)
        return [Suggestion(genotype=genotype) for genotype in problem.decode(np.concatenate([batch, rest]))]


def neighbour_vectors(problem: SearchProblem, vectors: np.ndarray) -> np.ndarray:
    """All distinct canonical vectors that differ from one of `vectors` in one gene."""
    changed = [vectors[:0]]
    for gene, size in enumerate(problem.sizes):
        for step in range(1, size):
            moved = vectors.copy()
            moved[:, gene] = (moved[:, gene] + step) % size
            changed.append(moved)
    return distinct(problem.canonicalise(np.concatenate(changed)))
