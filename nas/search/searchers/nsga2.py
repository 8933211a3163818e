"""NSGA-II on the measurements themselves, without a predictor (Deb et al. 2002), by pymoo."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.search.evolution import breed
from nas.search.objectives import as_costs, violations
from nas.search.problem import SearchProblem, distinct, outside
from nas.search.sampling import feasible, initial_vectors, sample_new
from nas.search.searchers.interface import Suggestion
from nas.search.study import Row

_NUM_ROUNDS = 5
"""Rounds of mating before a batch is filled up at random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nsga2:
    """Each batch is the offspring of the best `population_size` candidates measured so far."""

    population_size: int = 50

    def ask(
        self, problem: SearchProblem, history: Sequence[Row], *, num_candidates: int, rng: np.random.Generator
    ) -> list[Suggestion]:
        known = problem.encode([row.genotype for row in history])
        complete = [row for row in history if row.state == "complete"]
        batch = initial_vectors(problem) if not history else known[:0]
        batch = batch[:num_candidates]
        if len(complete) >= self.population_size:
            parents = problem.encode([row.genotype for row in complete])
            values = {o.name: np.array([row.values[o.name] for row in complete]) for o in problem.objectives}
            costs = as_costs(values, problem.objectives)
            excess = violations({**problem.compute_cheap(parents), **values}, problem.constraints)
            for _ in range(_NUM_ROUNDS):
                born = breed(
                    problem, parents, costs, excess, num=num_candidates, rng=rng, population_size=self.population_size
                )
                born = feasible(problem, born)
                batch = distinct(np.concatenate([batch, born[outside(born, known)]]))[:num_candidates]
        everything = np.concatenate([known, batch])
        rest = sample_new(problem, num_candidates - len(batch), known=everything, rng=rng)
        return [Suggestion(genotype=genotype) for genotype in problem.decode(np.concatenate([batch, rest]))]
