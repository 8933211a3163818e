"""Searches of a trained supernet, architectures with policies, every searcher at equal evaluations. Resumable.

    python -m tests.benchmarks.search_supernet --run RUN [--seeds 10] [--num-evaluations 100] [--num-images 2000]
        [--searchers predictor-guided nsga2 tpe random] [--objective error_pct] [--hardware PROFILE]

RUN is the folder of a run with a supernet and a profile, in whose place `--hardware` may name another. A search is
`nas search` with two objectives: `--objective`, error or cross-entropy of the simulated candidate on validation images,
and the profile's latency; every searcher begins with the same candidates. What it is worth is the hypervolume of its
front in error on the *test* images, which no search saw, and *logarithm* of latency, where smallest to largest network
in fp32 is the unit square and the reference point (1.1, 1.1); higher is better.

Torch has one thread, as a second one waits for the first where other work runs. No candidate is evaluated twice: scores
are kept in `RUN/evaluated.jsonl`, for all searchers, seeds and later calls.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from cyclopts import App, Parameter
from rich.console import Console

import nas
from hardware_profiles.profile import find_profile
from nas.candidates import OBJECTIVES, CheapObjectives, check_profile, first_genotypes, lru_cached
from nas.config import load_options, merge_options
from nas.evaluator import ScoresOf
from nas.run_inputs import load_inputs
from nas.search import optimize
from nas.search.pareto import hypervolume, on_front
from nas.stages import hash_file, hash_text
from nas.supernet import Supernet
from search_spaces import Architecture, Genotype
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
    objective: Literal["error_pct", "estimated_error_pct", "cross_entropy"] = "error_pct",
    output: Path = Path("results/search/supernet.csv"),
) -> None:
    """Search with each searcher and `seeds` seeds from `first_seed` on; rows there are kept."""
    trained = Trained(run, hardware=hardware, num_images=num_images, objective=objective)
    about = {"objective": objective, "num_images": trained.num_images, "inputs": trained.inputs}
    keys = [
        {"method": name, **about, "num_evaluations": num_evaluations, "seed": seed}
        for seed in range(first_seed, first_seed + seeds)
        for name in searchers
    ]
    frame = fill(output, keys, lambda key: measure(key, trained))
    by, figures = [*about, "num_evaluations", "method"], [f"hv_{num}" for num in budgets(num_evaluations)]
    Console(width=120).print(summarise(output, frame, by=by, figures=figures).round(4).to_string())


def budgets(num_evaluations: int) -> list[int]:
    """Numbers of evaluations after which searches are compared."""
    return [*(num for num in BUDGETS if num < num_evaluations), num_evaluations]


class Trained:
    """A run's supernet on its data and a profile; `inputs` names all but images that decides what candidates cost."""

    def __init__(self, run: Path, *, hardware: str | None, num_images: int | None, objective: str) -> None:
        config = merge_options(load_options(run / "config.yaml"))
        data, space = load_inputs(config)
        profile = find_profile(hardware or str(run / "profile.json"), space=space.name)
        check_profile(profile, space)
        supernet = Supernet.read(space, run / "supernet.safetensors")
        evaluate = ScoresOf(
            supernet, data, profile, num_images=num_images, calibration=config.calibration, num_threads=1
        )
        evaluate.fit_estimate()
        self.candidates, self.num_images = evaluate.candidates, len(evaluate.split)
        self.objectives = [OBJECTIVES[objective], OBJECTIVES["latency_ms"]]
        self.cheap = CheapObjectives(self.candidates, profile)
        fingerprints = (hash_file(run / "supernet.safetensors"), space.fingerprint, profile.fingerprint)
        parts = (nas.__version__, *fingerprints, data.fingerprint, config.calibration)
        self.inputs = f"{Path(data.name).name}-{hash_text(json.dumps(parts))[:8]}"
        self.evaluate = Evaluated(evaluate, run / "evaluated.jsonl", inputs=f"{self.inputs}-{self.num_images}")
        self.test = Evaluated(
            lambda genotype: {
                "error_pct": evaluate.evaluator.error_pct(self.candidates.candidate(genotype), data.test)
            },
            run / "evaluated.jsonl",
            inputs=f"{self.inputs}-test",
        )
        self.initial = first_genotypes(evaluate.evaluator, self.cheap)
        smallest, largest = (self._logarithmic_costs(end) for end in (space.smallest(), space.largest()))
        self._best, self._span = np.array([largest[0], smallest[1]]), np.abs(largest - smallest)

    def search(self, searcher: str, num_evaluations: int, seed: int) -> pd.DataFrame:
        """The study of one search."""
        return optimize(
            self.evaluate,
            self.candidates.choices,
            objectives=self.objectives,
            num_evaluations=num_evaluations,
            searcher=searcher,
            seed=seed,
            canonical=lru_cached(self.candidates),
            initial=self.initial,
            cheap=self.cheap,
        )

    def hypervolume(self, frame: pd.DataFrame) -> float:
        """Of the front of a study's rows, by errors on test."""
        front = frame[on_front(frame, self.objectives)]
        genotypes = front[[choice.name for choice in self.candidates.choices]].to_dict("records")
        errors = [self.test(genotype)["error_pct"] for genotype in genotypes]
        values = np.stack([errors, np.log(front["latency_ms"])], axis=1)
        return hypervolume((values - self._best) / self._span, REFERENCE)

    def _logarithmic_costs(self, architecture: Architecture) -> np.ndarray:
        """Error and logarithm of latency in fp32."""
        genotype = self.candidates.genotype(self.candidates.uniform(architecture))
        error_pct = self.test(genotype)["error_pct"]
        return np.array([error_pct, np.log(self.cheap([genotype])["latency_ms"][0])])


class Evaluated:
    """Evaluates a genotype unless that was done before with equal `inputs`; the scores of each are a line of a file."""

    def __init__(self, evaluate: Callable[[Genotype], dict[str, float]], path: Path, *, inputs: str) -> None:
        self._evaluate, self._path, self._inputs = evaluate, path, inputs
        lines = path.read_text().splitlines() if path.exists() else []
        known = [json.loads(line) for line in lines]
        self._scores = {_key(line["genotype"]): line["scores"] for line in known if line["inputs"] == inputs}

    def __call__(self, genotype: Genotype) -> dict[str, float]:
        key = _key(genotype)
        if key not in self._scores:
            self._scores[key] = self._evaluate(genotype)
            line = {"inputs": self._inputs, "scores": self._scores[key], "genotype": genotype}
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        return dict(self._scores[key])


def measure(key: Mapping[str, Any], trained: Trained) -> dict[str, float]:
    """The figures of one search."""
    frame = trained.search(key["method"], key["num_evaluations"], key["seed"])
    assert len(frame) == key["num_evaluations"], f"{key} measured only {len(frame)} candidates"
    return {f"hv_{num}": trained.hypervolume(frame.head(num)) for num in budgets(key["num_evaluations"])}


def _key(genotype: Genotype) -> str:
    return json.dumps(genotype, sort_keys=True)


if __name__ == "__main__":
    app()
