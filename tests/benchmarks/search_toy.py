"""Hypervolume of searches on a synthetic problem of 45 genes, after 60, 100 and 250 evaluations. Resumable.

    python -m tests.benchmarks.search_toy --problem 0 --seeds 10 [--noise-pct 1] [--searcher NAME]

The hypervolume is that of the noise-free values of everything measured. `cpu_s` counts the whole search, its
fits and its storage, in seconds of processor time.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console

from nas.search import Objective
from tests.benchmarks.search_methods import DEFAULT_METHODS, run
from tests.benchmarks.search_table import fill, summarise
from tests.benchmarks.toy_problem import CHOICES, ToyProblem

OBJECTIVES = (Objective("accuracy_pct", unit="%", maximize=True), Objective("latency_ms", unit="ms"))
BUDGETS = (60, 100, 250)
Many = Parameter(consume_multiple=True)

app = App(help_format="plaintext")


@app.default
def toy(
    *,
    problem: Annotated[tuple[int, ...], Many] = (0, 1),
    seeds: int = 10,
    first_seed: int = 0,
    noise_pct: float = 0.0,
    searcher: Annotated[tuple[str, ...], Many] = DEFAULT_METHODS,
    processes: int = 1,
    output: Path = Path("results/search/toy.csv"),
) -> None:
    """Search each problem with each method and `seeds` seeds from `first_seed` on; rows there are kept."""
    keys = [
        {"method": name, "problem": number, "noise_pct": noise_pct, "seed": seed}
        for number in problem
        for name in searcher
        for seed in range(first_seed, first_seed + seeds)
    ]
    frame = fill(output, keys, measure, processes=processes)
    figures = [*(f"hv_{budget}" for budget in BUDGETS), "cpu_s"]
    summary = summarise(output, frame, by=["problem", "noise_pct", "method"], figures=figures)
    Console(width=120).print(summary.round(4).to_string())


def measure(key: Mapping[str, Any]) -> dict[str, float]:
    """The figures of one search."""
    toy_problem = ToyProblem(key["problem"], noise_pct=key["noise_pct"], noise_seed=key["seed"])
    start_s = time.process_time()
    run(key["method"], toy_problem.measure, CHOICES, OBJECTIVES, max(BUDGETS), key["seed"])
    cpu_s = time.process_time() - start_s
    assert len(toy_problem.rows) >= max(BUDGETS), f"{key} measured only {len(toy_problem.rows)} candidates"
    return {f"hv_{num}": toy_problem.hypervolume(toy_problem.rows[:num]) for num in BUDGETS} | {"cpu_s": cpu_s}


if __name__ == "__main__":
    app()
