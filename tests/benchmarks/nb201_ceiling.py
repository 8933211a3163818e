"""How much of the fronts of NAS-Bench-201 can be known without measuring it: by a model of four fifths of all cells.

    python -m tests.benchmarks.nb201_ceiling --data FOLDER

Each cell's accuracy and latency are predicted by extra trees that know four fifths of the others, from genes and the
description of `tests.benchmarks.nb201_cells`. Two orders of cells are judged by the share of the exact front among
their first ones: by layers of the predictions, and by the chance of being on the front when each prediction errs as
those beside it do. Training and timing differ by chance from cell to cell, and a front is where chance was kind.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from cyclopts import App, Parameter
from rich.console import Console
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import KFold, cross_val_predict

from nas.provenance import provenance
from nas.search.acquisition import best_layers
from nas.search.pareto import is_nondominated
from nas.search.problem import SearchProblem
from predictors.features import GenotypeFeatures
from tests.benchmarks.nb201_cells import describe
from tests.benchmarks.search_nb201 import CHOICES, DEVICES, OBJECTIVES, Cells

FIRST = (100, 200)
NUM_FOLDS, NUM_TREES, NUM_DRAWS = 5, 100, 400
NUM_CONSIDERED, NUM_BESIDE = 1500, 100
"""Cells that may be on the front, and how many predictions to either side lend their errors."""
Many = Parameter(consume_multiple=True)

app = App(help_format="plaintext")


@app.default
def ceiling(
    *,
    data: Path,
    devices: Annotated[tuple[str, ...], Many] = DEVICES,
    output: Path = Path("results/search/nb201_ceiling.json"),
) -> None:
    """Write a row a device."""
    about = provenance(("numpy", "scikit-learn"))
    rows = []
    for device in devices:
        rows.append({"device": device} | found_shares(Cells(data, device), rng=np.random.default_rng(0)))
        print(rows[-1], flush=True)
    output.write_text(json.dumps(about | {"seeds": [0], "rows": rows}, indent=1) + "\n")
    Console(width=120).print(pd.DataFrame(rows).set_index("device").round(2).to_string())


def found_shares(cells: Cells, *, rng: np.random.Generator) -> dict[str, Any]:
    """Shares of the front among the first cells of both orders, and errors of cells near it in % of the range."""
    features = _features(np.array(cells.operations))
    folds = KFold(NUM_FOLDS, shuffle=True, random_state=0)
    trees = ExtraTreesRegressor(NUM_TREES, min_samples_leaf=2, max_features=0.5, n_jobs=-1, random_state=0)
    expected = np.stack([cross_val_predict(trees, features, y, cv=folds) for y in cells.costs.T], axis=1)
    errors = cells.costs - expected
    near, front = best_layers(cells.costs, 300), np.array(sorted(cells.front))
    orders = {"layers": best_layers(expected, max(FIRST)), "chance": _by_chance(expected, errors, rng)}
    medians = 100 * np.median(np.abs(errors[near]), axis=0)
    return {
        f"{name}_{num}": float(np.isin(front, order[:num]).mean()) for name, order in orders.items() for num in FIRST
    } | {"accuracy_error_pct": float(medians[0]), "latency_error_pct": float(medians[1])}


def _features(operations: np.ndarray) -> np.ndarray:
    """Of N cells, from N x 6 indices of operations."""
    genes, problem = GenotypeFeatures(CHOICES), SearchProblem(choices=CHOICES, objectives=OBJECTIVES)
    described = describe(problem.decode(operations))
    (needed,), (used, *arrays) = described["needed"], described["sequences"]
    vectors = [operations, problem.encode(needed), problem.encode(used)]
    return np.concatenate([*map(genes.transform, vectors), *arrays], axis=1)


def _by_chance(expected: np.ndarray, errors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cells in order of how often they are on the front of drawn costs."""
    considered = best_layers(expected, NUM_CONSIDERED)
    wins = np.zeros(len(considered))
    for _ in range(NUM_DRAWS):
        drawn = expected[considered].copy()
        for column in range(2):
            order = np.argsort(drawn[:, column])
            beside = np.arange(len(order)) + rng.integers(-NUM_BESIDE, NUM_BESIDE + 1, len(order))
            drawn[order, column] += errors[considered[order[beside.clip(0, len(order) - 1)]], column]
        wins += is_nondominated(drawn)
    return considered[np.argsort(-wins, kind="stable")]


if __name__ == "__main__":
    app()
