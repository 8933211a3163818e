"""Searches of a trained supernet, architectures with policies, every searcher at equal evaluations. Resumable.

    python -m tests.benchmarks.search_supernet --run RUN [--seeds 10] [--num-evaluations 100] [--num-images 2000]
        [--searchers predictor-guided nsga2 tpe random] [--hardware PROFILE]

RUN is the folder of a run with a supernet and a profile, in whose place `--hardware` may name another. A search is `nas search` with two objectives: the error of the
simulated candidate on validation images, and the profile's latency; so every searcher begins with the same candidates.
The hypervolume is that of all evaluated candidates in error and *logarithm* of latency, where smallest to largest
network in fp32 is the unit square and the reference point (1.1, 1.1); higher is better.

No candidate is evaluated twice: errors are kept in `RUN/evaluated.jsonl`, for all searchers, seeds and later calls.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from cyclopts import App, Parameter
from rich.console import Console

import nas
from hardware_profiles.profile import find_profile
from nas.candidates import CheapObjectives, ErrorOf, run_search
from nas.config import load_options, merge_options
from nas.run_inputs import load_inputs
from nas.search.executors import LocalExecutor
from nas.search.pareto import hypervolume
from nas.stages import hash_file, hash_text
from nas.supernet import Supernet
from search_spaces import Genotype
from tests.benchmarks.search_table import fill, summarise

BUDGETS = (25, 50, 100)
REFERENCE = np.full(2, 1.1)
Many = Parameter(consume_multiple=True)

app = App(help_format="plaintext")


@app.default
def compare(
    *,
    run: Path,
    seeds: int = 10,
    first_seed: int = 0,
    num_evaluations: int = 100,
    num_images: int | None = None,
    hardware: str | None = None,
    searchers: Annotated[tuple[str, ...], Many] = ("predictor-guided", "nsga2", "tpe", "random"),
    output: Path = Path("results/search/supernet.csv"),
) -> None:
    """Search with each searcher and `seeds` seeds from `first_seed` on; rows there are kept."""
    trained = Trained(run, hardware=hardware, num_images=num_images)
    keys = [
        {"method": name, "inputs": trained.inputs, "num_evaluations": num_evaluations, "seed": seed}
        for seed in range(first_seed, first_seed + seeds)
        for name in searchers
    ]
    frame = fill(output, keys, lambda key: measure(key, trained))
    by, figures = ["inputs", "num_evaluations", "method"], [f"hv_{num}" for num in budgets(num_evaluations)]
    Console(width=120).print(summarise(output, frame, by=by, figures=figures).round(4).to_string())


def budgets(num_evaluations: int) -> list[int]:
    """Numbers of evaluations after which searches are compared."""
    return [*(num for num in BUDGETS if num < num_evaluations), num_evaluations]


class Trained:
    """A run's supernet on its data and profile; `inputs` names all that decides what candidates cost."""

    def __init__(self, run: Path, *, hardware: str | None, num_images: int | None) -> None:
        config = merge_options(load_options(run / "config.yaml"))
        self.data, space = load_inputs(config)
        self.profile = find_profile(hardware or str(run / "profile.json"), space=space.name)
        self.supernet = Supernet(space)
        self.supernet.load(run / "supernet.safetensors")
        self.options = {"num_images": num_images, "calibration": config.calibration}
        evaluate = ErrorOf(self.supernet, self.data, self.profile, **self.options)
        weights = hash_file(run / "supernet.safetensors")
        parts = (nas.__version__, weights, space.fingerprint, self.profile.fingerprint, self.data.fingerprint)
        self.inputs = f"{Path(self.data.name).name}-{hash_text(json.dumps([*parts, self.options]))[:8]}"
        self.evaluate = Evaluated(evaluate, run / "evaluated.jsonl", inputs=self.inputs)
        candidates = evaluate.candidates
        ends = [candidates.genotype(candidates.uniform(end)) for end in (space.smallest(), space.largest())]
        latency_ms = CheapObjectives(candidates, self.profile)(ends)["latency_ms"]
        self._smallest, self._largest = _logarithmic([self.evaluate(end)["error_pct"] for end in ends], latency_ms)

    def hypervolume(self, frame: pd.DataFrame) -> float:
        """Of the rows of a study; failed ones count for nothing."""
        values = _logarithmic(frame["error_pct"], frame["latency_ms"])
        best = np.array([self._largest[0], self._smallest[1]])
        costs = (values - best) / np.abs(self._largest - self._smallest)
        return hypervolume(costs[np.isfinite(costs).all(axis=1)], REFERENCE)


class Evaluated:
    """Evaluates a genotype unless that was done before with equal `inputs`; every error is a line of a file."""

    def __init__(self, evaluate: ErrorOf, path: Path, *, inputs: str) -> None:
        self._evaluate, self._path, self._inputs = evaluate, path, inputs
        lines = path.read_text().splitlines() if path.exists() else []
        known = [json.loads(line) for line in lines]
        self._errors = {_key(line["genotype"]): line["error_pct"] for line in known if line["inputs"] == inputs}

    def __call__(self, genotype: Genotype) -> dict[str, float]:
        key = _key(genotype)
        if key not in self._errors:
            self._errors[key] = self._evaluate(genotype)["error_pct"]
            line = {"inputs": self._inputs, "error_pct": self._errors[key], "genotype": genotype}
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        return {"error_pct": self._errors[key]}


def measure(key: Mapping[str, Any], trained: Trained) -> dict[str, float]:
    """The figures of one search."""
    frame = run_search(
        trained.supernet,
        trained.data,
        trained.profile,
        objectives=("error_pct", "latency_ms"),
        num_evaluations=key["num_evaluations"],
        searcher=key["method"],
        seed=key["seed"],
        executor=lambda _: LocalExecutor(trained.evaluate),
        **trained.options,
    )
    assert len(frame) == key["num_evaluations"], f"{key} measured only {len(frame)} candidates"
    return {f"hv_{num}": trained.hypervolume(frame.head(num)) for num in budgets(key["num_evaluations"])}


def _logarithmic(error_pct: Any, latency_ms: Any) -> np.ndarray:
    """N x 2: errors as they are, logarithms of latencies."""
    return np.stack([np.asarray(error_pct, float), np.log(np.asarray(latency_ms, float))], axis=1)


def _key(genotype: Genotype) -> str:
    return json.dumps(genotype, sort_keys=True)


if __name__ == "__main__":
    app()
