"""Optuna's samplers as searchers: a tree of Parzen estimators (Ozaki et al. 2022) and a Gaussian process."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState, create_trial

from nas.search.problem import SearchProblem, distinct, outside
from nas.search.sampling import feasible, sample_new
from nas.search.searchers.filling import full_batch
from nas.search.searchers.interface import Suggestion
from nas.search.searchers.measured import Measured
from nas.search.study import Row
from search_spaces.space import Choice

_NUM_RANDOM = 10
"""Measured candidates before the sampler looks at them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptunaSampler:
    """Hands the history to a new sampler of Optuna and asks it for a batch, those asked before counting as running.

    Duplicates, and what breaks a cheap constraint, are replaced at random.
    """

    sampler: Literal["tpe", "gp"] = "tpe"

    def ask(
        self, problem: SearchProblem, history: Sequence[Row], *, num_candidates: int, rng: np.random.Generator
    ) -> list[Suggestion]:
        def asked(measured: Measured, known: np.ndarray) -> np.ndarray:
            batch = known[:0]
            has_choice = len(sample_new(problem, num_candidates + 1, known=known, rng=rng)) > num_candidates
            if not has_choice or len(measured.vectors) < _NUM_RANDOM:
                return batch
            study = self._study(problem, measured, seed=int(rng.integers(2**31)))
            distributions = {c.name: _distribution(c) for c in problem.choices}
            for _ in range(num_candidates):
                params = study.ask(distributions).params
                vector = problem.canonicalise(np.array([[params[c.name] for c in problem.choices]], np.int64))
                vector = feasible(problem, vector)
                batch = distinct(np.concatenate([batch, vector[outside(vector, known)]]))
            return batch

        return full_batch(problem, history, asked, num_candidates=num_candidates, rng=rng)

    def _study(self, problem: SearchProblem, measured: Measured, *, seed: int) -> optuna.Study:
        study = optuna.create_study(directions=["minimize"] * len(problem.objectives), sampler=self._sampler(seed))
        names = [choice.name for choice in problem.choices]
        distributions = {c.name: _distribution(c) for c in problem.choices}
        for vector, costs, excess in zip(measured.vectors.tolist(), measured.costs, measured.excess, strict=True):
            trial = create_trial(
                state=TrialState.COMPLETE,
                values=costs.tolist(),
                params=dict(zip(names, vector, strict=True)),
                distributions=distributions,
                constraints={str(c): float(e) for c, e in zip(problem.constraints, excess, strict=True)},
            )
            study.add_trial(trial)
        return study

    def _sampler(self, seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if self.sampler == "tpe":
                return optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=_NUM_RANDOM)
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=_NUM_RANDOM)


def _distribution(choice: Choice) -> BaseDistribution:
    """Over the indices of the values, ordered where the values are numbers."""
    if all(isinstance(value, int | float) for value in choice.values):
        return IntDistribution(0, len(choice.values) - 1)
    return CategoricalDistribution(tuple(range(len(choice.values))))
