"""How near to the true front searches of the synthetic problem come: a long NSGA-II as reference. Resumable.

    python -m tests.benchmarks.toy_reference [--problem 0 1 2] [--seeds 3] [--searcher predictor-guided]

The reference is pymoo's NSGA-II with 60,000 evaluations (population 200, 300 generations), its hypervolume that of
everything it evaluated: a lower bound of the front's. `PM(prob=0.02)` would mutate 2% of the individuals; here each
gene is mutated with probability 1/45. The searches are the rows of `search_toy`, which are read, not made.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from cyclopts import App, Parameter
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize
from rich.console import Console

from nas.provenance import provenance
from tests.benchmarks.search_table import fill
from tests.benchmarks.search_toy import BUDGETS
from tests.benchmarks.toy_problem import CHOICES, NUM_OPTIONS, ToyProblem

POPULATION_SIZE, NUM_GENERATIONS = 200, 300
ETA = 3.0
"""Distribution index of crossover and mutation that pymoo's documentation has for integers; with the default for real
numbers, 15 and 20, offspring seldom leave a value, and the hypervolume is 0.002 lower."""
Many = Parameter(consume_multiple=True)

app = App(help_format="plaintext")


@app.default
def reference(
    *,
    problem: Annotated[tuple[int, ...], Many] = (0, 1, 2),
    seeds: int = 3,
    searcher: str = "predictor-guided",
    searches: Path = Path("results/search/toy.csv"),
    processes: int = 1,
    output: Path = Path("results/search/toy_reference.csv"),
) -> None:
    """Run the reference, rows there are kept; write the share of it that `searcher` reaches beside it as JSON."""
    keys = [
        {"method": "pymoo-nsga2-60000", "problem": number, "seed": seed} for number in problem for seed in range(seeds)
    ]
    frame = fill(output, keys, measure, processes=processes)
    found = shares(pd.read_csv(searches), frame, searcher)
    about = {"searcher": searcher, **provenance(("numpy", "pymoo")), "rows": found}
    output.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n")
    Console(width=160).print(pd.DataFrame(found).round(4).to_string(index=False))


def measure(key: Mapping[str, Any]) -> dict[str, float]:
    """The hypervolume of one run of the reference."""
    problem = _Toy(key["problem"])
    algorithm = NSGA2(
        pop_size=POPULATION_SIZE,
        sampling=IntegerRandomSampling(),
        crossover=SBX(eta=ETA, vtype=float, repair=RoundingRepair()),
        mutation=PM(prob=1.0, prob_var=1 / len(CHOICES), eta=ETA, vtype=float, repair=RoundingRepair()),
    )
    minimize(problem, algorithm, ("n_gen", NUM_GENERATIONS), seed=key["seed"])
    rows = np.concatenate(problem.seen)
    assert len(rows) == POPULATION_SIZE * NUM_GENERATIONS
    return {"hypervolume": problem.toy.hypervolume(rows)}


def shares(searches: pd.DataFrame, references: pd.DataFrame, searcher: str) -> list[dict[str, Any]]:
    """For each problem and noise the mean reference and, of it, the mean and least share of the searches."""
    means = references.groupby("problem")["hypervolume"].mean()
    searches = searches[(searches["method"] == searcher) & searches["problem"].isin(means.index)]
    rows = []
    for (problem, noise_pct), group in searches.groupby(["problem", "noise_pct"]):
        row = {"problem": problem, "noise_pct": noise_pct, "num_runs": len(group), "reference": means[problem]}
        for num in BUDGETS:
            share = group[f"hv_{num}"] / means[problem]
            row |= {f"share_{num}": share.mean(), f"least_share_{num}": share.min()}
        rows.append(row)
    return rows


class _Toy(Problem):
    """The synthetic problem for many candidates at once; `seen` keeps accuracy and latency of all."""

    def __init__(self, number: int) -> None:
        super().__init__(n_var=len(CHOICES), n_obj=2, xl=0, xu=NUM_OPTIONS - 1, vtype=int)
        self.toy, self.seen = ToyProblem(number), list[np.ndarray]()

    def _evaluate(self, x: np.ndarray, out: dict[str, Any], *args: object, **kwargs: object) -> None:
        self.seen.append(self.toy.evaluate(np.asarray(x, np.int64)))
        out["F"] = self.seen[-1] * [-1.0, 1.0]


if __name__ == "__main__":
    app()
