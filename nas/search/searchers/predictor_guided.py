"""The default searcher: learn from what was measured, search the predictions, measure where they promise most."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.search.acquisition import greedy_batch
from nas.search.evolution import Pool, evolve
from nas.search.objectives import Objective, as_costs, violations
from nas.search.pareto import is_nondominated
from nas.search.problem import SearchProblem, distinct, outside
from nas.search.sampling import (
    MAX_ENUMERATED,
    corner_vectors,
    feasible,
    initial_vectors,
    random_vectors,
    sample_new,
    spread_new,
)
from nas.search.searchers.interface import Suggestion
from nas.search.study import Row
from predictors.accuracy import FAMILIES, AccuracyPredictor
from predictors.features import GenotypeFeatures

_MIN_ROWS = 5
"""Measured candidates before anything is learned from them."""
_OPTIMISM = (0.0, 1.0, 3.0)
"""Standard deviations granted to a prediction: none, and more where no candidate seems to improve the front."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorGuided:
    """Batches by predicted hypervolume improvement, found by NSGA-II over the predictions.

    The first batch holds the initial candidates (the corners of the space when none are given) and others far from
    them. Cheap columns are computed, never predicted; they are features of the predictors, too.
    """

    population_size: int = 100
    num_generations: int = 40
    families: tuple[str, ...] = tuple(FAMILIES)
    """Predictors to choose from, by cross-validation in every batch."""

    def ask(
        self, problem: SearchProblem, history: Sequence[Row], *, num_candidates: int, rng: np.random.Generator
    ) -> list[Suggestion]:
        known = problem.encode([row.genotype for row in history])
        complete = [row for row in history if row.state == "complete"]
        if len(complete) < _MIN_ROWS:
            vectors = _first_batch(problem, known, num_candidates, rng=rng)
            return [Suggestion(genotype=genotype) for genotype in problem.decode(vectors)]
        model = _Model(problem, complete, families=self.families)
        pool = self._pool(problem, model, rng=rng)
        vectors = _choose(model, pool, known, num_candidates)
        everything = np.concatenate([known, vectors])
        rest = sample_new(problem, num_candidates - len(vectors), known=everything, rng=rng)
        return model.suggest(np.concatenate([vectors, rest]))

    def _pool(self, problem: SearchProblem, model: "_Model", *, rng: np.random.Generator) -> Pool:
        """Promising candidates with predicted costs; in a small space, all candidates."""
        if problem.num_raw <= MAX_ENUMERATED:
            vectors = problem.enumerate()
            costs, excess = model.score(vectors)
            return Pool(vectors=vectors, costs=costs, violations=excess)
        best = is_nondominated(model.costs)
        others = random_vectors(problem, self.population_size, rng=rng, tilt=1.0)
        start = distinct(np.concatenate([model.vectors[best], model.vectors[~best], others]))[: self.population_size]
        return evolve(
            problem,
            model.score,
            start=start,
            rng=rng,
            population_size=self.population_size,
            num_generations=self.num_generations,
        )


class _Model:
    """What the complete rows say: their vectors and costs, and a predictor for every expensive objective."""

    def __init__(self, problem: SearchProblem, rows: Sequence[Row], *, families: Sequence[str]) -> None:
        self._problem = problem
        self._features = GenotypeFeatures(problem.choices)
        self.vectors = problem.encode([row.genotype for row in rows])
        values = {o.name: np.array([row.values[o.name] for row in rows]) for o in problem.objectives}
        self.costs = as_costs(values, problem.objectives)
        cheap = problem.compute_cheap(self.vectors)
        features = self._features.transform(self.vectors, cheap)
        self._predictors = {
            o.name: AccuracyPredictor(families=families).fit(features, values[o.name]) for o in problem.expensive
        }
        keeps = (violations({**cheap, **values}, problem.constraints) <= 0).all(axis=1)
        self.front = self.costs[keeps][is_nondominated(self.costs[keeps])]

    def score(self, vectors: np.ndarray, *, optimism: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Costs (N x M) and violations of the constraints, predicted; optimism is in standard deviations."""
        cheap = self._problem.compute_cheap(vectors)
        features = self._features.transform(vectors, cheap)
        values = {**cheap, **{o.name: self._predict(o, features, optimism) for o in self._problem.expensive}}
        return as_costs(values, self._problem.objectives), violations(values, self._problem.constraints)

    def suggest(self, vectors: np.ndarray) -> list[Suggestion]:
        """Suggestions with what the predictors expect."""
        if len(vectors) == 0:
            return []
        features = self._features.transform(vectors, self._problem.compute_cheap(vectors))
        expected = {name: p.predict(features, return_std=True) for name, p in self._predictors.items()}
        return [
            Suggestion(
                genotype=genotype,
                predicted={name: float(mean[row]) for name, (mean, _) in expected.items()},
                predicted_std={name: float(std[row]) for name, (_, std) in expected.items()},
            )
            for row, genotype in enumerate(self._problem.decode(vectors))
        ]

    def _predict(self, objective: Objective, features: np.ndarray, optimism: float) -> np.ndarray:
        predictor = self._predictors[objective.name]
        if optimism == 0.0:
            return predictor.predict(features)
        mean, std = predictor.predict(features, return_std=True)
        return mean + optimism * std * (1.0 if objective.maximize else -1.0)


def _choose(model: _Model, pool: Pool, known: np.ndarray, num: int) -> np.ndarray:
    """Up to `num` new vectors of `pool`, those of least violation when none is expected to keep the constraints."""
    new = outside(pool.vectors, known)
    vectors, costs, excess = pool.vectors[new], pool.costs[new], np.maximum(pool.violations[new], 0.0).sum(axis=1)
    if len(vectors) == 0:
        return vectors
    if excess.min() > 0:
        return vectors[np.argsort(excess, kind="stable")[:num]]
    vectors, costs = vectors[excess <= 0], costs[excess <= 0]
    chosen, front = vectors[:0], model.front
    for optimism in _OPTIMISM:
        if len(chosen) == num or len(vectors) == 0:
            break
        if optimism:
            costs = model.score(vectors, optimism=optimism)[0]
        rows = greedy_batch(costs, front, num - len(chosen))
        chosen, front = np.concatenate([chosen, vectors[rows]]), np.concatenate([front, costs[rows]])
        vectors = np.delete(vectors, rows, axis=0)
    return chosen


def _first_batch(problem: SearchProblem, known: np.ndarray, num: int, *, rng: np.random.Generator) -> np.ndarray:
    """Initial candidates or corners, then candidates far from them and from each other."""
    first = initial_vectors(problem) if problem.initial else feasible(problem, corner_vectors(problem))
    first = first[outside(first, known)][:num]
    rest = spread_new(problem, num - len(first), known=known, start=first, rng=rng)
    return np.concatenate([first, rest])
