"""What a focus does: evaluations inside its range and hypervolume there, with and without it. Resumable.

    python -m tests.benchmarks.search_focus [--focus latency_ms=14..18] [--seeds 3] [--num-evaluations 100]

The synthetic problem of 45 genes without noise. `share_inside` counts the evaluations after the first 20, which both
searches have in common; `hv_inside` is the volume that measured candidates inside the range dominate in it, as a share
of the box from the range's ends and the smallest network's accuracy to the largest network's.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cyclopts import App
from rich.console import Console

from nas.search import optimize, parse_focus
from nas.search.pareto import hypervolume
from tests.benchmarks.search_table import fill, summarise
from tests.benchmarks.search_toy import OBJECTIVES
from tests.benchmarks.toy_problem import CHOICES, ToyProblem

NUM_SHARED = 20

app = App(help_format="plaintext")


@app.default
def focus(
    *,
    problem: int = 0,
    focus: str = "latency_ms=14..18",
    seeds: int = 3,
    num_evaluations: int = 100,
    output: Path = Path("results/search/focus.csv"),
) -> None:
    """Search with and without the focus, each with `seeds` seeds; rows there are kept."""
    keys = [
        {
            "method": "predictor-guided",
            "problem": problem,
            "range": focus,
            "has_focus": has_focus,
            "num_evaluations": num_evaluations,
            "seed": seed,
        }
        for has_focus in (False, True)
        for seed in range(seeds)
    ]
    frame = fill(output, keys, measure)
    by = ["problem", "range", "num_evaluations", "has_focus"]
    summary = summarise(output, frame, by=by, figures=["share_inside", "hv_inside"])
    Console(width=120).print(summary.round(4).to_string())


def measure(key: Mapping[str, Any]) -> dict[str, float]:
    """The figures of one search."""
    toy_problem, focus = ToyProblem(key["problem"]), parse_focus(key["range"])
    optimize(
        toy_problem.measure,
        CHOICES,
        objectives=OBJECTIVES,
        num_evaluations=key["num_evaluations"],
        seed=key["seed"],
        focus=[focus] if key["has_focus"] else [],
    )
    accuracy, latency_ms = np.array(toy_problem.rows).T
    inside = (latency_ms >= focus.low) & (latency_ms <= focus.high)
    lowest, highest = toy_problem.smallest[0], toy_problem.largest[0]
    losses = np.stack(
        [(highest - accuracy) / (highest - lowest), (latency_ms - focus.low) / (focus.high - focus.low)], 1
    )
    return {
        "share_inside": float(inside[NUM_SHARED:].mean()),
        "hv_inside": hypervolume(losses[inside], np.ones(2)),
    }


if __name__ == "__main__":
    app()
