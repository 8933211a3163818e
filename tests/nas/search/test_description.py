"""Networks that are described to the predictors, beside their genes."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from nas.errors import UserError
from nas.search import Objective, optimize
from nas.search.problem import Description, SearchProblem
from nas.search.searchers.predictor_guided import _Model, _Predictor
from nas.search.study import Row
from predictors.features import Features
from search_spaces.space import Choice, Genotype
from tests.benchmarks.nb201_cells import describe as describe_cells

CHOICES = [Choice(name=f"gene.{i}", values=(0, 1, 2, 3)) for i in range(6)]
OBJECTIVES = [Objective("error"), Objective("latency")]
HIDDEN = np.random.default_rng(1).normal(size=(6, 4, 4))


def _hidden(genotype: Genotype) -> np.ndarray:
    """What decides the error: no sum over the genes."""
    genes = [int(value) for value in genotype.values()]
    return np.array([HIDDEN[i, genes[i], genes[(i + 1) % 6]] for i in range(6)])


def _evaluate(genotype: Genotype) -> dict[str, float]:
    return {"error": 10 + float(_hidden(genotype).sum()), "latency": 1.0 + sum(map(int, genotype.values()))}


def _search(**options: object) -> pd.DataFrame:
    return optimize(_evaluate, CHOICES, objectives=OBJECTIVES, num_evaluations=50, **options)  # type: ignore[arg-type]


def _median_error(frame: pd.DataFrame) -> float:
    """Of what was expected before the measurement."""
    expected = frame.dropna(subset=["predicted_error"])
    assert len(expected) >= 20
    return float((expected["predicted_error"] - expected["error"]).abs().median())


def test_a_description_counts_where_it_says_more_than_the_genes() -> None:
    def telling(genotypes: list[Genotype]) -> dict[str, list[np.ndarray]]:
        return {"pairs": [np.stack([_hidden(genotype) for genotype in genotypes])]}

    def silent(genotypes: list[Genotype]) -> dict[str, list[np.ndarray]]:
        return {"nothing": [np.ones((len(genotypes), 1))]}

    genes_alone = _median_error(_search())
    assert _median_error(_search(describe=telling)) < genes_alone / 4
    assert _median_error(_search(describe=silent)) < genes_alone * 2


def _used(genotype: Genotype) -> Genotype:
    """Genes do nothing unless the first is 3."""
    return {name: value if name == "gene.0" or genotype["gene.0"] == 3 else 0 for name, value in genotype.items()}


def _describe_used(genotypes: list[Genotype]) -> dict[str, list[list[Genotype]]]:
    return {"used": [[_used(genotype) for genotype in genotypes]]}


def test_networks_may_be_described_by_other_genotypes() -> None:
    def evaluate(genotype: Genotype) -> dict[str, float]:
        error = sum(float(HIDDEN[i, int(value), 0]) for i, value in enumerate(_used(genotype).values()))
        return {"error": 10 + error, "latency": 1.0 + sum(map(int, genotype.values()))}

    def search(**options: object) -> float:
        frame = optimize(evaluate, CHOICES, objectives=OBJECTIVES, num_evaluations=50, **options)  # type: ignore[arg-type]
        return _median_error(frame)

    assert search(describe=_describe_used) < search() / 2


def test_what_is_described_like_a_failed_network_is_not_asked_for() -> None:
    """Networks whose first gene is 0 promise most, and all of them fail."""

    def evaluate(genotype: Genotype) -> dict[str, float]:
        if genotype["gene.0"] == 0:
            raise ValueError("too small")
        values = [int(value) for value in _used(genotype).values()]
        return {"error": 10.0 + 5 * values[0] + sum((3 - v) ** 2 for v in values[1:]) / 9, "latency": 1.0 + sum(values)}

    def num_failed(**options: object) -> int:
        frame = optimize(evaluate, CHOICES, objectives=OBJECTIVES, num_evaluations=50, **options)  # type: ignore[arg-type]
        return int((frame["state"][20:] == "failed").sum())

    assert num_failed(describe=_describe_used) == 0 < num_failed()


def test_a_failure_is_expected_of_what_all_best_descriptions_say() -> None:
    """The first gene decides the latency, and describes too little to tell what fails."""

    def latency(genotype: Genotype) -> float:
        return float(np.exp(int(genotype["gene.0"])))

    def describe(genotypes: list[Genotype]) -> dict[str, Description]:
        parts = np.stack([_hidden(genotype) for genotype in genotypes])
        return {"parts": [parts], "first": [np.array([[latency(genotype)] for genotype in genotypes])]}

    problem = SearchProblem(choices=CHOICES, objectives=OBJECTIVES, describe=describe)
    vectors = np.random.default_rng(0).integers(3, size=(60, 6))
    rows = [
        Row(index=i, batch=0, genotype=g, values={"error": _evaluate(g)["error"], "latency": latency(g)})
        for i, g in enumerate(problem.decode(vectors))
    ]
    like = np.column_stack([np.full(5, 3), vectors[:5, 1:]])
    failed = Row(index=60, batch=1, genotype=problem.decode(like)[0], reason="too slow")
    model = _Model(problem, rows, [failed], families=("relevance-gaussian-process",))
    assert model._names(0) == {"parts", "first"}
    _, excess = model.score(like)
    assert excess[:, -1].tolist() == [1, 0, 0, 0, 0]


def test_descriptions_are_ranked_by_the_rows_that_count() -> None:
    """Each tells the values of one half and that the others are in the other half, no more."""
    rng = np.random.default_rng(0)
    values, noise = np.sort(rng.random(60)), rng.random(60)
    low = values < np.median(values)
    columns = {"low": np.where(low, values, 1 + noise), "high": np.where(low, noise, 1 + values)}
    views = {name: Features(column[:, None], (1,)) for name, column in columns.items()}

    def best(good: np.ndarray) -> str:
        return _Predictor.ranked(views, values, ("gaussian-process",), np.flatnonzero(good))[0].view

    assert [best(low), best(~low)] == ["low", "high"]


def test_descriptions_that_predict_about_as_well_are_asked_in_equal_parts() -> None:
    """Two have noise of their own beside what decides the error; narrow arrays weigh their columns, wide ones don't."""

    def noise(seed: int, genotype: Genotype) -> np.ndarray:
        return np.random.default_rng([seed, *map(int, genotype.values())]).normal(scale=0.3, size=6)

    def describe(genotypes: list[Genotype]) -> dict[str, Description]:
        parts = np.stack([_hidden(genotype) for genotype in genotypes])
        noisy = [parts + np.stack([noise(seed, genotype) for genotype in genotypes]) for seed in range(2)]
        return {"a": [noisy[0]], "b": [noisy[1]], "wide": [np.ones((len(parts), 21))]}

    problem = SearchProblem(choices=CHOICES, objectives=OBJECTIVES, describe=describe)
    vectors = np.random.default_rng(0).integers(4, size=(60, 6))
    errors = [(genotype, _evaluate(genotype)["error"]) for genotype in problem.decode(vectors[:40])]
    rows = [
        Row(index=index, batch=0, genotype=genotype, values={"error": error, "latency": 20 - error})
        for index, (genotype, error) in enumerate(errors)
    ]
    model = _Model(problem, rows, [], families=("relevance-gaussian-process",))
    views, _ = model._views(vectors, None)
    assert [len(views[name].tied) for name in ("a", "b", "wide")] == [6, 6, 0]
    assert model._names(0) | model._names(1) == {"a", "b"} == model._names(2) | model._names(3)
    alone = list(model._said(vectors[40:]))
    assert len(alone) == 2
    costs, std = model.predict(vectors[40:])
    assert np.array_equal(costs, np.mean([mean for mean, _ in alone], axis=0))
    assert np.allclose(std**2, np.mean([deviation**2 for _, deviation in alone], axis=0))
    draws = np.stack(list(model.draws_of_several(vectors[40:], rng=np.random.default_rng(0))))
    for part, rank in zip(np.array_split(draws, 2), range(2), strict=True):
        centers = np.median(part, axis=0)
        assert np.abs(centers - alone[rank][0]).sum() < np.abs(centers - alone[1 - rank][0]).sum()


@pytest.mark.parametrize(
    ("parts_of", "message"),
    [
        (lambda n: [np.ones(n)], "gave an array of shape"),
        (lambda n: [np.ones((n + 1, 2))], "gave an array of shape"),
        (lambda n: [np.zeros((n, 0))], "gave an array of shape"),
        (lambda n: [np.full((n, 1), np.nan)], "gave an array of shape"),
        (lambda n: [], "gave 0 parts as 'part'"),
        (lambda n: [[{}] * (n + 1)], "gave a list of"),
        (lambda n: [[[1.0]] * n], "gave a list of"),
        (lambda n: [[{}] * n], "lacks the gene 'gene.0'"),
    ],
)
def test_a_description_of_another_shape_is_refused(parts_of: Callable[[int], Description], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _search(describe=lambda genotypes: {"part": parts_of(len(genotypes))})


def test_a_description_needs_a_name() -> None:
    with pytest.raises(UserError, match="gave 1 parts as ''"):
        _search(describe=lambda genotypes: {"": [genotypes]})


def _cell(*operations: str) -> Genotype:
    edges = ("op_1_0", "op_2_0", "op_2_1", "op_3_0", "op_3_1", "op_3_2")
    return dict(zip(edges, operations, strict=True))


def test_operations_that_lead_nowhere_are_not_in_the_description() -> None:
    dead_end = _cell("nor_conv_3x3", "none", "none", "skip_connect", "none", "none")
    empty = _cell("none", "none", "none", "skip_connect", "none", "none")
    other = _cell("none", "none", "none", "nor_conv_1x1", "none", "none")
    described = describe_cells([dead_end, empty, other])
    counts = described.pop("run")
    for part in (part for parts in described.values() for part in parts):
        assert np.array_equal(part[0], part[1])
        assert not np.array_equal(part[0], part[2])
    assert described["needed"] == [[empty, empty, other]]
    assert describe_cells([empty, other])["used"] == [[empty, other]]
    assert np.asarray(counts[0]).tolist() == [[4, 1, 0, 1, 0], [5, 1, 0, 0, 0], [5, 0, 1, 0, 0]]


def test_what_the_output_needs_may_get_nothing_from_the_input() -> None:
    starved = _cell("none", "none", "nor_conv_3x3", "skip_connect", "none", "avg_pool_3x3")
    described = describe_cells([starved])
    assert described["needed"] == [[starved]]
    assert np.asarray(described["needed-counts"][0]).tolist() == [[3, 1, 0, 1, 1]]
    assert described["used"] == [[_cell("none", "none", "none", "skip_connect", "none", "none")]]
    _, paths, sequences = described["sequences"]
    counts, ends, most, totals = [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0], [0, 0, 0, 1, 1]
    assert np.asarray(paths).tolist() == [[*counts, *ends, *most, *totals]]
    assert np.asarray(sequences).tolist() == [[1.0] + [0.0] * 39]


def test_paths_are_described_by_what_lies_on_them() -> None:
    """Three paths: a 1x1 convolution; a 3x3 convolution, then pooling; a 3x3 convolution twice."""
    cell = _cell("nor_conv_3x3", "none", "skip_connect", "nor_conv_1x1", "avg_pool_3x3", "nor_conv_3x3")
    counts, ends, most, totals = [1, 1, 2, 1], [1, 2, 0, 1], [2, 2, 2], [3, 1, 1, 3, 0]
    described = describe_cells([cell])
    assert np.asarray(described["paths"][0]).tolist() == [[*counts, *ends, *most, *totals]]
    assert np.asarray(described["sequences"][2]).sum() == 3
