"""Networks that are described to the predictors, beside their genes."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from nas.errors import UserError
from nas.search import Objective, optimize
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
    def telling(genotypes: list[Genotype]) -> list[np.ndarray]:
        return [np.stack([_hidden(genotype) for genotype in genotypes])]

    def silent(genotypes: list[Genotype]) -> list[np.ndarray]:
        return [np.ones((len(genotypes), 1))]

    genes_alone = _median_error(_search())
    assert _median_error(_search(describe=telling)) < genes_alone / 4
    assert _median_error(_search(describe=silent)) < genes_alone * 2


@pytest.mark.parametrize(
    "part_of",
    [
        lambda n: np.ones(n),
        lambda n: np.ones((n + 1, 2)),
        lambda n: np.zeros((n, 0)),
        lambda n: np.full((n, 1), np.nan),
    ],
)
def test_a_description_of_another_shape_is_refused(part_of: Callable[[int], np.ndarray]) -> None:
    with pytest.raises(UserError, match="`describe` gave an array of shape"):
        _search(describe=lambda genotypes: [part_of(len(genotypes))])


def test_operations_that_lead_nowhere_are_not_in_the_description() -> None:
    edges = ("op_1_0", "op_2_0", "op_2_1", "op_3_0", "op_3_1", "op_3_2")

    def cell(*operations: str) -> Genotype:
        return dict(zip(edges, operations, strict=True))

    dead_end = cell("nor_conv_3x3", "none", "none", "skip_connect", "none", "none")
    empty = cell("none", "none", "none", "skip_connect", "none", "none")
    other = cell("none", "none", "none", "nor_conv_1x1", "none", "none")
    for kind in describe_cells([dead_end, empty, other]):
        assert (kind[0] == kind[1]).all()
        assert (kind[0] != kind[2]).any()
