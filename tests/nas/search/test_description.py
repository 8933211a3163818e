"""Networks that are described to the predictors, beside their genes."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from nas.errors import UserError
from nas.search import Objective, optimize
from nas.search.problem import Description
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
    for parts in describe_cells([dead_end, empty, other]).values():
        for part in parts:
            assert np.array_equal(part[0], part[1])
            assert not np.array_equal(part[0], part[2])
    assert describe_cells([dead_end, empty, other])["needed"] == [[empty, empty, other]]
    assert describe_cells([empty, other])["used"] == [[empty, other]]


def test_what_the_output_needs_may_get_nothing_from_the_input() -> None:
    starved = _cell("none", "none", "nor_conv_3x3", "skip_connect", "none", "avg_pool_3x3")
    described = describe_cells([starved])
    assert described["needed"] == [[starved]]
    assert described["used"] == [[_cell("none", "none", "none", "skip_connect", "none", "none")]]
    counts, paths = described["paths"][1:]
    assert counts.tolist() == [[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]
    assert np.asarray(paths).tolist() == [[1.0] + [0.0] * 39]
