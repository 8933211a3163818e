"""Uniform random search: the baseline every other searcher has to beat."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.search.problem import SearchProblem
from nas.search.sampling import initial_vectors, sample_new
from nas.search.searchers.interface import Suggestion
from nas.search.study import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSearch:
    """Draws every gene uniformly after the initial candidates; none that breaks a cheap constraint is measured."""

    def ask(
        self, problem: SearchProblem, history: Sequence[Row], *, num_candidates: int, rng: np.random.Generator
    ) -> list[Suggestion]:
        known = problem.encode([row.genotype for row in history])
        first = initial_vectors(problem)[:num_candidates] if not history else known[:0]
        rest = sample_new(problem, num_candidates - len(first), known=np.concatenate([known, first]), rng=rng)
        vectors = np.concatenate([first, rest])
        return [Suggestion(genotype=g) for g in problem.decode(vectors)]
