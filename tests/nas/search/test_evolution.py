import numpy as np
import pytest

from nas.search.evolution import evolve, mutate
from nas.search.objectives import as_costs
from nas.search.pareto import hypervolume
from nas.search.problem import SearchProblem, distinct
from nas.search.sampling import random_vectors
from search_spaces.space import Choice
from tests.nas.search.problems import CHOICES, LARGE_CHOICES, OBJECTIVES, canonical, evaluate, evaluate_large


def test_every_mutant_differs_from_its_parent_in_about_two_genes():
    sizes = np.array([2, 3, 4, 1] * 10)
    parents = np.random.default_rng(0).integers(0, sizes, size=(2000, 40))
    mutants = mutate(parents, sizes, rng=np.random.default_rng(1))
    changes = (mutants != parents).sum(axis=1)
    assert changes.min() >= 1
    assert changes.mean() == pytest.approx(2 - 1 / 30, abs=0.1)
    assert ((mutants >= 0) & (mutants < sizes)).all()


def test_mutation_reaches_every_value_of_a_gene_equally_often():
    mutants = mutate(np.zeros((3000, 1), np.int64), np.array([4]), rng=np.random.default_rng(0))
    assert np.bincount(mutants[:, 0], minlength=4)[1:] == pytest.approx(1000, abs=120)
    fixed = np.zeros((2, 1), np.int64)
    assert (mutate(fixed, np.array([1]), rng=np.random.default_rng(0)) == fixed).all()


def test_evolution_looks_at_distinct_canonical_candidates_only():
    problem = SearchProblem(choices=CHOICES, objectives=OBJECTIVES, canonical=canonical)

    def score(vectors):
        values = [evaluate(genotype) for genotype in problem.decode(vectors)]
        return as_costs({n: [v[n] for v in values] for n in values[0]}, OBJECTIVES), np.zeros((len(vectors), 0))

    rng = np.random.default_rng(0)
    pool = evolve(problem, score, start=distinct(random_vectors(problem, 20, rng=rng)), rng=rng, num_generations=10)
    assert (problem.canonicalise(pool.vectors) == pool.vectors).all()
    assert len(distinct(pool.vectors)) == len(pool.vectors)


def test_evolution_with_a_warm_start_keeps_its_start_and_improves_on_it():
    problem = SearchProblem(choices=LARGE_CHOICES, objectives=OBJECTIVES)

    def score(vectors):
        values = [evaluate_large(genotype) for genotype in problem.decode(vectors)]
        costs = as_costs({n: [v[n] for v in values] for n in values[0]}, OBJECTIVES)
        return costs, costs[:, 1:] - 30.0

    start = distinct(random_vectors(problem, 50, rng=np.random.default_rng(0)))
    pool = evolve(problem, score, start=start, rng=np.random.default_rng(1), population_size=50)
    assert (pool.vectors[: len(start)] == start).all()
    keeps = (pool.violations <= 0).all(axis=1)
    before, after = pool.costs[: len(start)][keeps[: len(start)]], pool.costs[keeps]
    reference = np.array([100.0, 30.0])
    assert hypervolume(after, reference) > 1.5 * hypervolume(before, reference)
    assert (pool.violations[len(start) :] <= 0).mean() > 0.5


def test_one_valued_choices_are_allowed_everywhere():
    problem = SearchProblem(choices=(Choice(name="a", values=(1,)),), objectives=OBJECTIVES)
    assert problem.enumerate().tolist() == [[0]]
