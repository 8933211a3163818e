"""Multi-objective evolution over vectors of gene indices, by pymoo's algorithms and this module's operators.

nsga2: Deb et al. 2002; nsga3: Deb and Jain 2014, for three and more objectives; age-moea: Panichella 2019.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pymoo.algorithms.base.genetic import GeneticAlgorithm
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.core.mutation import Mutation
from pymoo.core.problem import Problem
from pymoo.core.repair import Repair
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.util.reference_direction import UniformReferenceDirectionFactory

from nas.errors import UserError
from nas.search.problem import SearchProblem

Score = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From N vectors to N x M costs and N x K constraint violations (kept where <= 0)."""
AlgorithmName = Literal["nsga2", "nsga3", "age-moea"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Everything an evolution looked at: distinct canonical vectors, their costs and violations."""

    vectors: np.ndarray
    costs: np.ndarray
    violations: np.ndarray


def evolve(
    problem: SearchProblem,
    score: Score,
    *,
    start: np.ndarray,
    rng: np.random.Generator,
    population_size: int = 100,
    num_generations: int = 40,
) -> Pool:
    """Minimise `score` from a population that holds `start` (canonical vectors, distinct)."""
    costs, excess = score(start[:1])
    recorded = _Recorder(problem, score, num_objectives=costs.shape[1], num_constraints=excess.shape[1])
    algorithm = _algorithm("nsga2", recorded, start=start, size=population_size, num_offspring=population_size)
    algorithm.setup(recorded, seed=int(rng.integers(2**31)), termination=("n_gen", num_generations))
    while algorithm.has_next():
        algorithm.next()
    return recorded.pool()


def breed(
    problem: SearchProblem,
    parents: np.ndarray,
    costs: np.ndarray,
    excess: np.ndarray,
    *,
    algorithm: AlgorithmName,
    num: int,
    rng: np.random.Generator,
    population_size: int,
) -> np.ndarray:
    """`num` offspring of the best `population_size` of `parents` (N distinct vectors), whose scores are known."""
    rows = {vector.tobytes(): row for row, vector in enumerate(np.ascontiguousarray(parents, np.int64))}

    def score(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [rows[vector.tobytes()] for vector in np.ascontiguousarray(vectors, np.int64)]
        return costs[found], excess[found]

    recorded = _Recorder(problem, score, num_objectives=costs.shape[1], num_constraints=excess.shape[1])
    engine = _algorithm(algorithm, recorded, start=parents, size=population_size, num_offspring=num)
    engine.setup(recorded, seed=int(rng.integers(2**31)))
    engine.next()
    engine.pop = engine.survival.do(
        recorded, engine.pop, n_survive=population_size, random_state=engine.random_state, algorithm=engine
    )
    return np.asarray(engine.ask().get("X"), np.int64)


class GeneReset(Mutation):
    """Gives each gene another of its values with probability 1 / (number of genes), and at least one gene always.

    pymoo's own `PM(prob=p)` would mutate a share p of the individuals, and an integer gene seldom leaves its value.
    """

    def __init__(self, sizes: np.ndarray) -> None:
        super().__init__(prob=1.0)
        self.sizes = sizes

    def _do(
        self, problem: Any, X: np.ndarray, *args: Any, random_state: np.random.Generator, **kwargs: Any
    ) -> np.ndarray:
        return mutate(np.asarray(X, np.int64), self.sizes, rng=random_state)


def mutate(vectors: np.ndarray, sizes: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Each gene of each vector differs with probability 1 / (number of genes that can), one gene of each always."""
    free = np.flatnonzero(sizes > 1)
    if len(free) == 0:
        return vectors
    num = len(vectors)
    chosen = rng.random((num, len(free))) < 1 / len(free)
    chosen[np.arange(num), rng.integers(0, len(free), num)] = True
    steps = 1 + (rng.random((num, len(free))) * (sizes[free] - 1)).astype(np.int64)
    mutated = vectors.copy()
    mutated[:, free] = (vectors[:, free] + np.where(chosen, steps, 0)) % sizes[free]
    return mutated


def _algorithm(
    name: AlgorithmName, recorded: "_Recorder", *, start: np.ndarray, size: int, num_offspring: int
) -> GeneticAlgorithm:
    shared = {
        "pop_size": size,
        "n_offsprings": num_offspring,
        "sampling": start,
        "crossover": UniformCrossover(prob=0.9),
        "mutation": GeneReset(recorded.problem.sizes),
        "repair": _Canonical(recorded.problem),
    }
    if name == "nsga3":
        return NSGA3(_directions(recorded.n_obj, size), **shared)
    if name == "age-moea":
        return _age_moea()(**shared)
    return NSGA2(**shared)


def _age_moea() -> Callable[..., GeneticAlgorithm]:
    try:
        import numba  # noqa: F401  (pymoo's module of it raises a bare Exception where it is missing)
    except ModuleNotFoundError:
        raise UserError("searcher 'age-moea' needs numba; pip install 'hybridnas[age-moea]', or take nsga3") from None
    from pymoo.algorithms.moo.age import AGEMOEA

    return AGEMOEA


def _directions(num_objectives: int, most: int) -> np.ndarray:
    """Evenly spread reference directions, as many as there are up to `most` (Das and Dennis 1998)."""
    best = np.eye(num_objectives)
    for num_partitions in range(2, most):
        directions = UniformReferenceDirectionFactory(num_objectives, n_partitions=num_partitions).do()
        if len(directions) > most:
            break
        best = directions
    return best


class _Canonical(Repair):
    """Offspring in canonical form, so that equal networks are seen to be equal."""

    def __init__(self, problem: SearchProblem) -> None:
        super().__init__()
        self.problem = problem

    def _do(self, problem: Any, X: np.ndarray, **kwargs: Any) -> np.ndarray:
        return self.problem.canonicalise(np.asarray(X, np.int64))


class _Recorder(Problem):
    """The pymoo problem; keeps what it evaluated."""

    def __init__(self, problem: SearchProblem, score: Score, *, num_objectives: int, num_constraints: int) -> None:
        super().__init__(
            n_var=len(problem.sizes),
            n_obj=num_objectives,
            n_ieq_constr=num_constraints,
            xl=np.zeros_like(problem.sizes),
            xu=problem.sizes - 1,
            vtype=int,
        )
        self.problem = problem
        self._score = score
        self._seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def _evaluate(self, x: np.ndarray, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        vectors = np.asarray(x, np.int64)
        costs, excess = self._score(vectors)
        self._seen.append((vectors, costs, excess))
        out["F"] = costs
        if excess.shape[1]:
            out["G"] = excess

    def pool(self) -> Pool:
        vectors, costs, excess = (np.concatenate(parts) for parts in zip(*self._seen, strict=True))
        _, first = np.unique(vectors, axis=0, return_index=True)
        first.sort()
        return Pool(vectors=vectors[first], costs=costs[first], violations=excess[first])
