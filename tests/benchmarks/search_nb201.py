"""NAS-Bench-201 as a search benchmark: CIFAR-100 accuracy against measured latency of five devices. Resumable.

    python -m tests.benchmarks.search_nb201 --data FOLDER [--devices raspi4 pixel3] [--seeds 5] [--searcher NAME]

FOLDER holds `nb201.parquet`: a row a cell, `op_<i>_<j>` for its six genes, `acc_cifar100`, `lat_ms__<device>`. Both
objectives are scaled to 0-1 over all cells, reference point (1.1, 1.1). Regret is the hypervolume of all cells minus
that of the measured ones; recall the share of the exact front that was measured. A cell without a latency fails when it
is measured. `predictor-guided-described` is the default searcher that is told, beside the genes, what the cells are
made of (`tests.benchmarks.nb201_cells`); `predictor-guided-recall-described` one that looks for members of the front,
too, in batches of five.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from cyclopts import App, Parameter
from rich.console import Console

from nas.search import Objective
from nas.search.pareto import hypervolume, is_nondominated
from nas.search.searchers import PredictorGuided, Searcher
from search_spaces.space import Choice, Genotype
from tests.benchmarks.nb201_cells import GENES, OPERATIONS, describe
from tests.benchmarks.search_methods import DEFAULT_METHODS, run
from tests.benchmarks.search_table import fill, summarise

CHOICES = tuple(Choice(name=gene, values=OPERATIONS) for gene in GENES)
DEVICES = ("gold_6226", "raspi4", "pixel3", "latbench_i7_7820x", "titan_rtx_256")
BUDGETS = (25, 50, 100, 200)
OBJECTIVES = (Objective("accuracy_pct", unit="%", maximize=True), Objective("latency_ms", unit="ms"))
RELEVANCE = ("relevance-gaussian-process",)
"""The family that is chosen nearly always where cells are described; the others would double the time."""
DESCRIBED: Mapping[str, tuple[Searcher, Mapping[str, Any]]] = {
    "predictor-guided-described": (PredictorGuided(families=RELEVANCE), {"describe": describe}),
    "predictor-guided-recall-described": (
        PredictorGuided(front_share=0.8, drawn_until=50, families=RELEVANCE),
        {"describe": describe, "batch_size": 5},
    ),
}
"""Searcher and its options."""
REFERENCE = np.full(2, 1.1)
Many = Parameter(consume_multiple=True)

app = App(help_format="plaintext")


@app.default
def nb201(
    *,
    data: Path,
    devices: Annotated[tuple[str, ...], Many] = DEVICES,
    seeds: int = 5,
    first_seed: int = 0,
    searcher: Annotated[tuple[str, ...], Many] = (*DEFAULT_METHODS, *DESCRIBED),
    processes: int = 1,
    output: Path = Path("results/search/nb201.csv"),
) -> None:
    """Search for each device with each method and `seeds` seeds from `first_seed` on; rows there are kept."""
    keys = [
        {"method": name, "device": device, "seed": seed}
        for device in devices
        for name in searcher
        for seed in range(first_seed, first_seed + seeds)
    ]
    frame = fill(output, keys, lambda key: measure(key, data), processes=processes)
    figures = [*(f"regret_{n}" for n in BUDGETS), *(f"recall_{n}" for n in BUDGETS), "cpu_s"]
    summary = summarise(output, frame, by=["device", "method"], figures=figures)
    Console(width=150).print(summary.round(4).to_string())


class Cells:
    """The cells of one device; counts what is measured. `costs` (N x 2) are scaled to 0-1, lower is better."""

    def __init__(self, data: Path, device: str) -> None:
        table = pd.read_parquet(data / "nb201.parquet")
        table = table[table[f"lat_ms__{device}"].notna()]
        self.names = tuple(o.name for o in OBJECTIVES)
        values = table[["acc_cifar100", f"lat_ms__{device}"]].to_numpy()
        self._values = dict(zip(map(tuple, table[list(GENES)].to_numpy().tolist()), values, strict=True))
        best = np.array([values[:, 0].max(), values[:, 1].min()])
        self.costs = (best - values) / np.ptp(values, axis=0) * [1.0, -1.0]
        self._rows = dict(zip(self._values, range(len(values)), strict=True))
        self.front = set(np.flatnonzero(is_nondominated(self.costs)).tolist())
        self.total = hypervolume(self.costs, REFERENCE)
        self.measured: list[int | None] = []

    @property
    def operations(self) -> list[tuple[int, ...]]:
        """Of each cell, as indices in the order of `GENES`."""
        return list(self._values)

    def measure(self, genotype: Genotype) -> dict[str, float]:
        """One evaluation; NaN for a cell that has no latency on this device."""
        key = tuple(OPERATIONS.index(str(genotype[gene])) for gene in GENES)
        self.measured.append(self._rows.get(key))
        return dict(zip(self.names, map(float, self._values.get(key, (np.nan, np.nan))), strict=True))

    def regret(self, num: int) -> float:
        """Of the first `num` evaluations; lower is better."""
        return self.total - hypervolume(self.costs[[row for row in self.measured[:num] if row is not None]], REFERENCE)

    def recall(self, num: int) -> float:
        """Share of the exact front among the first `num` evaluations; higher is better."""
        return len(self.front & set(self.measured[:num])) / len(self.front)


def measure(key: Mapping[str, Any], data: Path) -> dict[str, float]:
    """The figures of one search."""
    cells = Cells(data, key["device"])
    start_s = time.process_time()
    searcher, options = DESCRIBED.get(key["method"], (key["method"], {}))
    run(searcher, cells.measure, CHOICES, OBJECTIVES, max(BUDGETS), key["seed"], **options)
    cpu_s = time.process_time() - start_s
    assert len(cells.measured) >= max(BUDGETS), f"{key} measured only {len(cells.measured)} candidates"
    regrets = {f"regret_{num}": cells.regret(num) for num in BUDGETS}
    return regrets | {f"recall_{num}": cells.recall(num) for num in BUDGETS} | {"cpu_s": cpu_s}


if __name__ == "__main__":
    app()
