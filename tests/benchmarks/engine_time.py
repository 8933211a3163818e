"""Seconds that the engine itself takes in a whole search: 1,000 evaluations of 80 genes whose measuring costs nothing.

    python -m tests.benchmarks.engine_time [--num-evaluations 1000] [--genes 80] [--output FILE]

Error and latency are linear sums over the genes, which pull against each other. Counted is everything that `optimize`
does: fits, inner searches, choosing, and keeping the study in a file. One thread, one run. `growth` has the sum after
every 100 evaluations; `last_quarters` is the time of the last quarter of them over that of the quarter before, 1 where
the sum grows linearly in the end; `cpu_last_quarters`, of processor time, is the same without waiting for the disk.
"""

import json
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from cyclopts import App
from rich.console import Console
from threadpoolctl import threadpool_limits

from nas.provenance import provenance
from nas.search import Objective, optimize
from search_spaces.space import Choice, Genotype

OPTIONS = (0, 1, 2)
STEP = 100
"""Evaluations between two figures of `growth`."""
OBJECTIVES = (Objective("error_pct", unit="%"), Objective("latency_ms", unit="ms"))

app = App(help_format="plaintext")


@app.default
def engine_time(
    *,
    num_evaluations: int = 1000,
    genes: int = 80,
    seed: int = 0,
    output: Path = Path("results/search/engine_time.json"),
) -> None:
    """Time one search; write seconds an evaluation, on the clock and of the processor, and their growth to `output`."""
    gain, cost = np.random.default_rng(seed).uniform(0.2, 1.0, size=(2, genes))
    stamps: list[tuple[float, float]] = []

    def measure(genotype: Genotype) -> dict[str, float]:
        stamps.append((perf_counter(), process_time()))
        vector = np.array([int(value) for value in genotype.values()])
        return {"error_pct": float(100 - gain @ np.sqrt(vector)), "latency_ms": float(1 + cost @ vector)}

    choices = [Choice(name=f"gene.{gene}", values=OPTIONS) for gene in range(genes)]
    with threadpool_limits(limits=1), tempfile.TemporaryDirectory() as folder:
        start_s, start_cpu_s = perf_counter(), process_time()
        optimize(
            measure,
            choices,
            objectives=OBJECTIVES,
            num_evaluations=num_evaluations,
            seed=seed,
            study=Path(folder) / "study.db",
        )
        stamps.append((perf_counter(), process_time()))
    sums_s = np.array(stamps[1:]) - [start_s, start_cpu_s]  # after 1, 2, ... evaluations
    total_s, cpu_s = sums_s[-1].tolist()
    figures: dict[str, Any] = {
        "num_evaluations": num_evaluations,
        "num_genes": genes,
        "total_s": total_s,
        "per_evaluation_s": total_s / num_evaluations,
        "cpu_per_evaluation_s": cpu_s / num_evaluations,
        "last_quarters": last_quarters(sums_s[:, 0]),
        "cpu_last_quarters": last_quarters(sums_s[:, 1]),
        "growth": [
            {"num_evaluations": num, "total_s": sums_s[num - 1, 0], "cpu_s": sums_s[num - 1, 1]}
            for num in range(STEP, num_evaluations + 1, STEP)
        ],
    }
    about = provenance(("numpy", "scipy", "scikit-learn", "pymoo", "optuna"))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({**about, "runs": 1, **figures}, indent=1) + "\n")
    Console().print_json(data=figures)


def last_quarters(sums_s: np.ndarray) -> float:
    """Of sums after 1, 2, ... evaluations: what the last quarter of these added over what the quarter before added."""
    half_s, three_s, all_s = (sums_s[len(sums_s) * part // 4 - 1] for part in (2, 3, 4))
    return float((all_s - three_s) / (three_s - half_s))


if __name__ == "__main__":
    app()
