"""Aging evolution (Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search")."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.search.evolution import mutate
from nas.search.problem import SearchProblem, distinct, outside
from nas.search.sampling import feasible
from nas.search.searchers.filling import full_batch
from nas.search.searchers.interface import Suggestion
from nas.search.searchers.measured import Measured
from nas.search.study import Row

_NUM_ROUNDS = 20
"""Rounds of mutation before a batch is filled up at random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgingEvolution:
    """Mutants of the winners of tournaments among the `population_size` youngest candidates; the old die, however good.

    A tournament's winner is any of its contestants that no other dominates, so several objectives need no weights.
    """

    population_size: int = 50
    tournament_size: int = 10

    def ask(
        self, problem: SearchProblem, history: Sequence[Row], *, num_candidates: int, rng: np.random.Generator
    ) -> list[Suggestion]:
        def mutants(measured: Measured, known: np.ndarray) -> np.ndarray:
            batch, num = known[:0], len(measured.vectors)
            young = np.arange(num - self.population_size, num)
            for _ in range(_NUM_ROUNDS if num >= self.population_size else 0):
                parents = measured.vectors[[self._winner(measured, young, rng) for _ in range(num_candidates)]]
                born = feasible(problem, problem.canonicalise(mutate(parents, problem.sizes, rng=rng)))
                batch = distinct(np.concatenate([batch, born[outside(born, known)]]))[:num_candidates]
                if len(batch) == num_candidates:
                    break
            return batch

        return full_batch(problem, history, mutants, num_candidates=num_candidates, rng=rng)

    def _winner(self, measured: Measured, young: np.ndarray, rng: np.random.Generator) -> int:
        contestants = rng.choice(young, min(self.tournament_size, len(young)), replace=False)
        layer = measured.layers(contestants)
        return int(rng.choice(contestants[layer == layer.min()]))
