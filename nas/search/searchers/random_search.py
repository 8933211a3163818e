"""Uniform random search: the baseline every other searcher has to beat."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.search.problem import SearchProblem
from nas.search.searchers.filling import full_batch
from nas.search.searchers.interface import Suggestion
from nas.search.study import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSearch:
    """Draws every gene uniformly after the initial candidates; none that breaks a cheap constraint is measured."""

    def ask(
        self, problem: SearchProblem, history: Sequence[Row], *, num_candidates: int, rng: np.random.Generator
    ) -> list[Suggestion]:
        return full_batch(problem, history, lambda _, known: known[:0], num_candidates=num_candidates, rng=rng)
