"""What a searcher is: a pure function from a problem and the completed batches to the next batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from nas.search.problem import SearchProblem
from nas.search.study import Row
from search_spaces.space import Genotype


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A candidate to measure, with what the searcher expects of it (objective names; may be empty)."""

    genotype: Genotype
    predicted: Mapping[str, float] = field(default_factory=dict)
    predicted_std: Mapping[str, float] = field(default_factory=dict)


class Searcher(Protocol):
    """Any object with this method, and no state that changes; dataclasses are recorded in the study with their fields.

    What `ask` returns depends on its arguments alone, so a search is resumed by asking again.
    """

    def ask(
        self, problem: SearchProblem, history: Sequence[Row], *, num_candidates: int, rng: np.random.Generator
    ) -> list[Suggestion]:
        """The next batch: up to `num_candidates` distinct canonical candidates that are not in `history`.

        Args:
            problem: what is searched.
            history: every row of the completed batches, failed ones included, in order of evaluation.
            num_candidates: size of the batch; fewer, or none, mean that nothing else is left to measure.
            rng: the only source of chance; the same for the same seed and batch.
        """
