"""One million candidates of the synthetic problem of 45 genes predicted and sorted, in seconds.

    python -m tests.benchmarks.million [--num 1000000] [--threads 2] [--output results/search/million.json]

Both objectives are predicted by the Gaussian process that the default searcher fits, the most expensive of its
families, here to 250 random candidates; then every candidate gets its non-dominated layer. `ratio` is the time that
scikit-learn's process with the same kernel takes for as many means, measured on a part in the same run, to this one.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import numpy as np
from cyclopts import App
from rich.console import Console
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel
from threadpoolctl import threadpool_limits

from nas.provenance import provenance
from nas.search.objectives import Objective
from nas.search.pareto import nondominated_layers
from nas.search.problem import SearchProblem
from nas.search.sampling import random_vectors
from predictors.features import GenotypeFeatures
from predictors.gaussian_process import GaussianProcess
from tests.benchmarks.toy_problem import CHOICES, ToyProblem

NUM_MEASURED, NUM_COMPARED = 250, 20_000
CHUNK = 16_384
"""Candidates whose features are made at a time."""

app = App(help_format="plaintext")


@app.default
def million(
    *, num: int = 1_000_000, threads: int = 2, seed: int = 0, output: Path = Path("results/search/million.json")
) -> None:
    """Time one prediction of `num` candidates and one sort; write the seconds and what made them to `output`."""
    rng = np.random.default_rng(seed)
    problem = SearchProblem(choices=CHOICES, objectives=(Objective("error_pct"), Objective("latency_ms")))
    features = GenotypeFeatures(CHOICES)
    measured, candidates = (random_vectors(problem, size, rng=rng) for size in (NUM_MEASURED, num))
    X, costs = features.transform(measured), ToyProblem().evaluate(measured) * [-1.0, 1.0]
    with threadpool_limits(limits=1):
        models = [GaussianProcess(features.groups(), compress=True).fit(X, y) for y in costs.T]
        start_s = perf_counter()
        predicted = _predict(models, features, candidates, threads)
        predicted_s = perf_counter() - start_s
        layers = nondominated_layers(predicted)
        sorted_s = perf_counter() - start_s - predicted_s
        reference_s = _scikit_learn_s(X, costs, features.transform(candidates[:NUM_COMPARED]))
    figures = {
        "num_candidates": num,
        "num_measured": NUM_MEASURED,
        "threads": threads,
        "predict_s": predicted_s,
        "sort_s": sorted_s,
        "total_s": predicted_s + sorted_s,
        "ratio": reference_s * num / min(num, NUM_COMPARED) / predicted_s,
        "num_layers": int(layers.max()) + 1,
    }
    about = {**provenance(("numpy", "scipy", "scikit-learn")), "runs": 1, **figures}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(about, indent=1) + "\n")
    Console().print_json(data=figures)


def _predict(
    models: list[GaussianProcess], features: GenotypeFeatures, candidates: np.ndarray, threads: int
) -> np.ndarray:
    """Expected costs of `candidates`, N x 2."""

    def part(first: int) -> np.ndarray:
        X = features.transform(candidates[first : first + CHUNK])
        return np.stack([model.predict(X) for model in models], axis=1)

    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(part, range(0, len(candidates), CHUNK))))


def _scikit_learn_s(X: np.ndarray, costs: np.ndarray, new: np.ndarray) -> float:
    """Seconds in which scikit-learn predicts both means of `new`, on one thread."""
    kernel = DotProduct(sigma_0=0.0, sigma_0_bounds="fixed") + ConstantKernel() * RBF(10.0) + WhiteKernel(0.05)
    models = [GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True).fit(X, y) for y in costs.T]
    start_s = perf_counter()
    for model in models:
        model.predict(new)
    return perf_counter() - start_s


if __name__ == "__main__":
    app()
