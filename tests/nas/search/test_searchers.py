"""The contract of a searcher: every one in the registry keeps it."""

from dataclasses import replace

import numpy as np
import pytest

from nas.errors import UserError
from nas.search.objectives import Objective, parse_constraint
from nas.search.problem import SearchProblem
from nas.search.searchers import OptunaSampler, PredictorGuided, RandomSearch, describe_searcher, get_searcher
from nas.search.searchers.predictor_guided import _Model
from nas.search.study import Row
from tests.nas.search.problems import (
    CHOICES,
    LARGE_CHOICES,
    NUM_DISTINCT,
    OBJECTIVES,
    SEARCHER_NAMES,
    canonical,
    evaluate,
    evaluate_large,
)

LATENCY_LIMIT = parse_constraint("latency_ms<=12")


def _cheap(genotypes):
    return {"latency": np.array([evaluate_large(genotype)["latency_ms"] for genotype in genotypes])}


SMALL = SearchProblem(choices=CHOICES, objectives=OBJECTIVES, canonical=canonical)
LARGE = SearchProblem(choices=LARGE_CHOICES, objectives=OBJECTIVES)
LIMITED = SearchProblem(
    choices=LARGE_CHOICES, objectives=OBJECTIVES, cheap=_cheap, constraints=(parse_constraint("latency<=12"),)
)


def _rows(problem, num, seed=0):
    """Measured candidates, one of ten failed."""
    measure = evaluate if problem is SMALL else evaluate_large
    suggestions = RandomSearch().ask(problem, [], num_candidates=num, rng=np.random.default_rng(seed))
    return [
        Row(index=i, batch=i // 10, genotype=s.genotype, reason="no")
        if i % 10 == 9
        else Row(index=i, batch=i // 10, genotype=s.genotype, values=measure(s.genotype))
        for i, s in enumerate(suggestions)
    ]


@pytest.fixture(params=SEARCHER_NAMES)
def searcher(request):
    return get_searcher(request.param)


@pytest.mark.parametrize("problem", [SMALL, LARGE, LIMITED], ids=["small", "large", "limited"])
@pytest.mark.parametrize("num_rows", [0, 3, 60])
def test_batch_is_full_distinct_canonical_and_new(searcher, problem, num_rows):
    history = _rows(problem, num_rows)
    batch = searcher.ask(problem, history, num_candidates=4, rng=np.random.default_rng(1))
    vectors = problem.encode([suggestion.genotype for suggestion in batch])
    assert len(batch) == 4
    assert (problem.canonicalise(vectors) == vectors).all()
    keys = {tuple(v) for v in vectors.tolist()}
    assert len(keys) == 4
    assert not keys & {tuple(v) for v in problem.encode([row.genotype for row in history]).tolist()}
    if problem is LIMITED:
        assert (_cheap([suggestion.genotype for suggestion in batch])["latency"] <= 12).all()


def test_batch_is_a_pure_function_of_its_arguments(searcher):
    for history, num in ((_rows(LARGE, 60), 4), ([], 8)):
        first, second, other = (
            searcher.ask(LARGE, history, num_candidates=num, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
        )
        assert first == second
        if not (history and searcher == OptunaSampler()):  # tpe tries so many options that all seeds find the same best
            assert [s.genotype for s in first] != [s.genotype for s in other]


def test_first_batch_begins_with_the_initial_candidates_that_keep_the_constraints(searcher):
    largest, smallest = ({c.name: c.values[i] for c in LARGE_CHOICES} for i in (-1, 0))
    for limits, expected in (((), [largest, smallest]), (LIMITED.constraints, [smallest])):
        problem = SearchProblem(
            choices=LARGE_CHOICES,
            objectives=OBJECTIVES,
            cheap=_cheap,
            constraints=limits,
            initial=(largest, smallest, largest),
        )
        batch = searcher.ask(problem, [], num_candidates=8, rng=np.random.default_rng(0))
        assert [s.genotype for s in batch][: len(expected)] == expected
        assert largest not in [s.genotype for s in batch][len(expected) :]


def test_exhausted_space_gives_what_is_left_and_then_nothing(searcher):
    history = _rows(SMALL, NUM_DISTINCT - 3)
    batch = searcher.ask(SMALL, history, num_candidates=8, rng=np.random.default_rng(0))
    assert len(batch) == 3
    rest = [Row(index=0, batch=99, genotype=s.genotype, values=evaluate(s.genotype)) for s in batch]
    assert searcher.ask(SMALL, history + rest, num_candidates=8, rng=np.random.default_rng(0)) == []


def test_predictor_guided_expects_what_it_suggests_and_keeps_expensive_constraints():
    problem = SearchProblem(choices=LARGE_CHOICES, objectives=OBJECTIVES, constraints=(LATENCY_LIMIT,))
    batch = get_searcher("predictor-guided").ask(
        problem, _rows(LARGE, 150), num_candidates=8, rng=np.random.default_rng(0)
    )
    for suggestion in batch:
        assert set(suggestion.predicted) == set(suggestion.predicted_std) == {"error_pct", "latency_ms"}
        assert suggestion.predicted["latency_ms"] <= 12
    measured = [evaluate_large(suggestion.genotype)["latency_ms"] for suggestion in batch]
    assert np.corrcoef(measured, [s.predicted["latency_ms"] for s in batch])[0, 1] > 0.9


@pytest.mark.parametrize("num_objectives", [2, 3])
def test_front_share_chooses_among_a_hundred_rows_and_more(num_objectives):
    problem = replace(LARGE, objectives=(*OBJECTIVES, Objective("noise"))[:num_objectives])

    def batch(front_share, num_rows):
        history = [
            replace(row, values={**row.values, "noise": float(row.index * 37 % 100)}) if row.values else row
            for row in _rows(LARGE, num_rows)
        ]
        searcher = PredictorGuided(front_share=front_share, num_generations=5)
        suggestions = searcher.ask(problem, history, num_candidates=10, rng=np.random.default_rng(0))
        return [tuple(suggestion.genotype.items()) for suggestion in suggestions]

    assert batch(0.6, 99) == batch(0.0, 99)
    plain, shared = batch(0.0, 130), batch(0.6, 130)
    assert len(set(shared)) == 10
    assert shared[:1] == plain[:1]
    assert len(set(shared) - set(plain)) >= 3


def test_draws_err_as_left_out_predictions_beside_them_do():
    rng = np.random.default_rng(0)
    rows = [row for row in _rows(LARGE, 150) if row.values]
    middle = np.median([row.values["latency_ms"] for row in rows])

    def noisy(row):
        slow = row.values["latency_ms"] > middle
        return replace(row, values={**row.values, "error_pct": row.values["error_pct"] + slow * rng.normal(0, 30)})

    rows = [noisy(row) for row in rows]
    model = _Model(LARGE, rows, [], families=("gaussian-process",))
    latency = model.measured.costs[:, 1]
    costs = model.measured.costs[[latency.argmin(), latency.argmax()]]
    draws = np.stack(list(model.draws(costs, np.zeros((2, 2)), rng=rng)))
    assert draws[:, 1, 0].std() > 1.5 * draws[:, 0, 0].std() > 0
    unsure = np.stack(list(model.draws(costs, np.full((2, 2), 100.0), rng=rng)))
    assert (unsure.std(axis=0) > 40).all()


def test_candidates_are_drawn_at_random_as_long_as_is_said():
    def batch(drawn_until, num_rows):
        searcher = PredictorGuided(drawn_until=drawn_until, num_generations=5)
        return searcher.ask(LARGE, _rows(LARGE, num_rows), num_candidates=10, rng=np.random.default_rng(0))

    assert batch(50, 40) == batch(100, 40)
    assert batch(50, 60) != batch(100, 60)
    assert batch(50, 60)[:8] == batch(100, 60)[:8]


def test_front_share_is_a_share():
    with pytest.raises(UserError, match=r"front_share=1.5 must be 0 to 1"):
        PredictorGuided(front_share=1.5)


@pytest.mark.parametrize("num_objectives", [3, 4, 5])
@pytest.mark.filterwarnings("ignore:Box decomposition:UserWarning")
def test_three_to_five_objectives(searcher, num_objectives):
    objectives = (*OBJECTIVES, *(Objective(f"size_{i}", maximize=i % 2 == 0) for i in range(num_objectives - 2)))
    problem = SearchProblem(choices=CHOICES, objectives=objectives, canonical=canonical)
    num_rows = 11 if searcher == OptunaSampler(sampler="gp") else 60  # Optuna's takes minutes for five objectives
    rows = [
        Row(index=row.index, batch=0, genotype=row.genotype, values={**row.values, **_sizes(row.genotype, objectives)})
        for row in _rows(SMALL, num_rows)
        if row.state == "complete"
    ]
    batch = searcher.ask(problem, rows, num_candidates=4, rng=np.random.default_rng(0))
    assert len({tuple(suggestion.genotype.items()) for suggestion in batch}) == 4


def _sizes(genotype, objectives):
    return {o.name: float(genotype[f"kernel.{i}"]) * float(genotype["width"]) for i, o in enumerate(objectives[2:])}


def test_searchers_by_name_dotted_path_and_object():
    assert isinstance(get_searcher("nas.search.searchers.random_search:RandomSearch"), RandomSearch)
    searcher = RandomSearch()
    assert get_searcher(searcher) is searcher
    assert describe_searcher("random") == "random"
    assert describe_searcher(searcher) == {"class": "nas.search.searchers.random_search:RandomSearch"}
    with pytest.raises(UserError, match="unknown searcher 'rondom'; available: .*Did you mean random"):
        get_searcher("rondom")
    with pytest.raises(UserError, match="searcher 'nowhere:Searcher' can't be imported"):
        get_searcher("nowhere:Searcher")
