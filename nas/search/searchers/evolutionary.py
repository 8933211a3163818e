"""Evolution on the measurements themselves, without a predictor, by pymoo's algorithms."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.search.evolution import AlgorithmName, breed
from nas.search.problem import SearchProblem, distinct, outside
from nas.search.sampling import feasible
from nas.search.searchers.filling import full_batch
from nas.search.searchers.interface import Suggestion
from nas.search.searchers.measured import Measured
from nas.search.study import Row

_NUM_ROUNDS = 5
"""Rounds of mating before a batch is filled up at random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evolutionary:
    """Each batch is the offspring of the best `population_size` candidates measured so far, as it ranks them."""

    algorithm: AlgorithmName = "nsga2"
    population_size: int = 50

    def ask(
        self, problem: SearchProblem, history: Sequence[Row], *, num_candidates: int, rng: np.random.Generator
    ) -> list[Suggestion]:
        def offspring(measured: Measured, known: np.ndarray) -> np.ndarray:
            batch = known[:0]
            for _ in range(_NUM_ROUNDS if len(measured.vectors) >= self.population_size else 0):
                born = breed(
                    problem,
                    measured.vectors,
                    measured.costs,
                    measured.excess,
                    algorithm=self.algorithm,
                    num=num_candidates,
                    rng=rng,
                    population_size=self.population_size,
                )
                born = feasible(problem, born)
                batch = distinct(np.concatenate([batch, born[outside(born, known)]]))[:num_candidates]
            return batch

        return full_batch(problem, history, offspring, num_candidates=num_candidates, rng=rng)
