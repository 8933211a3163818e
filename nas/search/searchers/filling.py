"""Batches that are full: what a searcher proposes, and random candidates in the places that are left."""

from collections.abc import Callable, Sequence

import numpy as np

from nas.search.problem import SearchProblem
from nas.search.sampling import initial_vectors, sample_new
from nas.search.searchers.interface import Suggestion
from nas.search.searchers.measured import Measured
from nas.search.study import Row

Propose = Callable[[Measured, np.ndarray], np.ndarray]
"""From what was measured and all known vectors, failed ones included, to distinct canonical vectors that are new."""


def full_batch(
    problem: SearchProblem, history: Sequence[Row], propose: Propose, *, num_candidates: int, rng: np.random.Generator
) -> list[Suggestion]:
    """The initial candidates when nothing was measured yet, else what `propose` gives; both filled up at random."""
    known = problem.encode([row.genotype for row in history])
    batch = propose(Measured.of(problem, history), known) if history else initial_vectors(problem)
    batch = batch[:num_candidates]
    rest = sample_new(problem, num_candidates - len(batch), known=np.concatenate([known, batch]), rng=rng)
    return [Suggestion(genotype=genotype) for genotype in problem.decode(np.concatenate([batch, rest]))]
