"""Searches to compare: this package's through `nas.search.optimize`, and others as their libraries ship them.

Each takes the function that measures a genotype, the choices, the objectives, a number of evaluations and a seed.
The measuring function keeps the record, so a method's own account of what it did is never needed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import ElementwiseProblem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize
from threadpoolctl import threadpool_limits

from nas.search import Objective, optimize
from nas.search.searchers import Searcher
from search_spaces.space import Choice, Genotype

Measure = Callable[[Genotype], Mapping[str, float]]
Method = Callable[[Measure, Sequence[Choice], Sequence[Objective], int, int], None]


def by_name(name: str | Searcher, **options: Any) -> Method:
    """A name of `OTHERS`, or anything `optimize` accepts as a searcher, which gets the options, too."""
    if isinstance(name, str) and name in OTHERS:
        return OTHERS[name]

    def search(
        measure: Measure, choices: Sequence[Choice], objectives: Sequence[Objective], num: int, seed: int
    ) -> None:
        optimize(measure, choices, objectives=objectives, num_evaluations=num, searcher=name, seed=seed, **options)

    return search


def pymoo_nsga2(population_size: int = 100) -> Method:
    """NSGA-II with pymoo's defaults and its own operators for integers; 100 is its default population."""

    def search(
        measure: Measure, choices: Sequence[Choice], objectives: Sequence[Objective], num: int, seed: int
    ) -> None:
        class Integers(ElementwiseProblem):
            def __init__(self) -> None:
                last = [len(c.values) - 1 for c in choices]
                super().__init__(n_var=len(choices), n_obj=len(objectives), xl=0, xu=np.array(last), vtype=int)

            def _evaluate(self, x: np.ndarray, out: dict, *args: object, **kwargs: object) -> None:
                genotype = {c.name: c.values[int(i)] for c, i in zip(choices, x, strict=True)}
                out["F"] = _costs(measure(genotype), objectives)

        algorithm = NSGA2(
            pop_size=population_size,
            sampling=IntegerRandomSampling(),
            crossover=SBX(vtype=float, repair=RoundingRepair()),
            mutation=PM(vtype=float, repair=RoundingRepair()),
        )
        minimize(Integers(), algorithm, ("n_eval", num), seed=seed)

    return search


def optuna_tpe(
    measure: Measure, choices: Sequence[Choice], objectives: Sequence[Objective], num: int, seed: int
) -> None:
    """Optuna's TPE with its defaults; genes that are numbers are integers to it, others categories."""

    def trial_costs(trial: optuna.Trial) -> list[float]:
        genotype: Genotype = {}
        for choice in choices:
            if all(isinstance(value, int) for value in choice.values):
                genotype[choice.name] = choice.values[trial.suggest_int(choice.name, 0, len(choice.values) - 1)]
            else:
                genotype[choice.name] = trial.suggest_categorical(choice.name, choice.values)
        return _costs(measure(genotype), objectives)

    sampler = optuna.samplers.TPESampler(seed=seed)
    optuna.create_study(sampler=sampler, directions=["minimize"] * len(objectives)).optimize(trial_costs, n_trials=num)


def uniform(measure: Measure, choices: Sequence[Choice], objectives: Sequence[Objective], num: int, seed: int) -> None:
    """Every gene drawn uniformly."""
    rng = np.random.default_rng(seed)
    for _ in range(num):
        measure({c.name: c.values[rng.integers(len(c.values))] for c in choices})


OTHERS: Mapping[str, Method] = {
    "uniform": uniform,
    "pymoo-nsga2": pymoo_nsga2(),
    "pymoo-nsga2-20": pymoo_nsga2(20),
    "optuna-tpe": optuna_tpe,
}
"""Not through this package; `pymoo-nsga2-20` has a population of 20, which suits a few hundred evaluations better."""
DEFAULT_METHODS = ("predictor-guided", *OTHERS)


def run(
    name: str | Searcher,
    measure: Measure,
    choices: Sequence[Choice],
    objectives: Sequence[Objective],
    num: int,
    seed: int,
    **options: Any,
) -> None:
    """One search on one core."""
    with threadpool_limits(limits=1):
        by_name(name, **options)(measure, choices, objectives, num, seed)


def of_package(name: str) -> bool:
    """Whether results depend on this package's code."""
    return name not in OTHERS


def _costs(values: Mapping[str, float], objectives: Sequence[Objective]) -> list[float]:
    """Lower is better; a failed measurement is worse than any other."""
    costs = [values[o.name] * (-1.0 if o.maximize else 1.0) for o in objectives]
    return costs if np.isfinite(costs).all() else [1e9] * len(objectives)
