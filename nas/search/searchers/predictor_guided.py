"""The default searcher: learn from what was measured, search the predictions, measure where they promise most."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from nas.errors import UserError
from nas.search.acquisition import best_layers, greedy_batch, likely_batch, optimistic_batch
from nas.search.evolution import Pool, evolve
from nas.search.objectives import Objective, as_costs, focus_box, violations
from nas.search.pareto import is_nondominated
from nas.search.problem import SearchProblem, distinct, outside
from nas.search.sampling import (
    MAX_ENUMERATED,
    corner_vectors,
    feasible,
    initial_vectors,
    random_vectors,
    sample_new,
    spread_new,
)
from nas.search.searchers.interface import Suggestion
from nas.search.searchers.measured import Measured
from nas.search.study import Row
from predictors.accuracy import FAMILIES, AccuracyPredictor
from predictors.features import Features, GenotypeFeatures, numeric_columns
from predictors.gaussian_process import Compression
from search_spaces.space import Genotype

_MIN_ROWS = 15
"""Measured candidates before anything is learned from them."""
_OPTIMISM, _OPTIMISM_BESIDE_LIKELY = (0.0, 0.5, 0.0, 1.0), (0.0, 1.0)
"""Standard deviations granted to the predictions of each member of a batch in turn; and where the others are those
likeliest on the front, in turn over batches, too, as there may be one."""
_LEVELS = (0.0, 1.0, 3.0)
"""The same, where objectives are more than two: none, and more where no candidate seems to improve the front."""

_DRAWN_ONE_IN, _DRAWN_UNTIL = 5, 100
"""One candidate in so many, until there are so many rows, is drawn at random from the better of those considered:
a predictor that learns only from what it asked for stays sure of its mistakes about the rest."""
_LIKELY_FROM = 100
"""Rows from which on candidates that are likely on the front are asked for."""
_BETTER = 0.25
"""Share of the candidates considered that are the better ones."""
_NUM_LIKELY, _NUM_DRAWS = 1500, 512
"""Candidates that may be likeliest on the front, and draws of their costs that tell."""
_NUM_BEST, _NUM_BESIDE = 80, 12
"""Measured candidates, best layers first, whose left-out errors are drawn, and how many of them lie beside a
candidate: near the front errors differ from those elsewhere, and between its ends."""
_DRAWN_STD = 0.5
"""Standard deviations that draws add to left-out errors, which have most of what isn't known in them."""
_GOOD = 0.7
"""Share of the measured candidates, best layers first, by whose left-out errors a description is chosen: one may tell
bad candidates from worse and say little of the others."""
_MAX_RELEVANCES = 20
"""Columns of a described array, at most, that are tuned a relevance each."""
_NUM_RANKS, _COMPARABLE = 4, 1.2
"""Descriptions, at most, whose predictors are asked, and how many times the lowest error theirs may be."""
_GENES = ""
"""Name of what predictors learn from where nothing is described."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorGuided:
    """Batches by predicted hypervolume improvement, found by NSGA-II over the predictions.

    The first batch holds the initial candidates (the corners of the space when none are given) and others far from
    them. Cheap columns are computed, never predicted; they are features of the predictors, too. From the first
    prediction on, a focus limits what is searched and the volume that counts.
    """

    population_size: int = 100
    num_generations: int = 40
    families: tuple[str, ...] = tuple(FAMILIES)
    """Predictors to choose from, by cross-validation in every batch."""
    front_share: float = 0.0
    """Share of each batch, from 100 candidates on, that are likeliest on the front instead of adding most hypervolume:
    finds more of the front's members for a little of its volume. 0 to 1."""
    drawn_until: int = _DRAWN_UNTIL
    """Candidates until which one in five of a batch is drawn at random from the better ones."""

    def __post_init__(self) -> None:
        if not 0 <= self.front_share <= 1:
            raise UserError(f"front_share={self.front_share} must be 0 to 1, the share of a batch")

    def ask(
        self, problem: SearchProblem, history: Sequence[Row], *, num_candidates: int, rng: np.random.Generator
    ) -> list[Suggestion]:
        known = problem.encode([row.genotype for row in history])
        complete = [row for row in history if row.state == "complete"]
        failed = [row for row in history if row.state == "failed"]
        if len(complete) < _MIN_ROWS:
            vectors = _first_batch(problem, known, num_candidates, rng=rng)
            return [Suggestion(genotype=genotype) for genotype in problem.decode(vectors)]
        model = _Model(problem, complete, failed, families=self.families)
        pool = self._pool(problem, model, rng=rng)
        num_drawn = num_candidates // _DRAWN_ONE_IN if len(known) < self.drawn_until else 0
        num_likely = round(self.front_share * num_candidates) if len(known) >= _LIKELY_FROM else 0
        vectors = _choose(model, pool, known, num_candidates, num_drawn=num_drawn, num_likely=num_likely, rng=rng)
        everything = np.concatenate([known, vectors])
        rest = sample_new(problem, num_candidates - len(vectors), known=everything, rng=rng)
        return model.suggest(np.concatenate([vectors, rest]))

    def _pool(self, problem: SearchProblem, model: "_Model", *, rng: np.random.Generator) -> Pool:
        """Promising candidates with predicted costs; in a small space, all candidates."""
        if problem.num_raw <= MAX_ENUMERATED:
            vectors = problem.enumerate()
            costs, excess = model.score(vectors)
            return Pool(vectors=vectors, costs=costs, violations=excess)
        best, measured = is_nondominated(model.measured.costs), model.measured.vectors
        others = random_vectors(problem, self.population_size, rng=rng, tilt=1.0)
        start = distinct(np.concatenate([measured[best], measured[~best], others]))[: self.population_size]
        return evolve(
            problem,
            model.score,
            start=start,
            rng=rng,
            population_size=self.population_size,
            num_generations=self.num_generations,
        )


@dataclass(frozen=True, slots=True)
class _Predictor:
    """An `AccuracyPredictor` and the name of what it learns from."""

    view: str
    fitted: AccuracyPredictor

    @classmethod
    def ranked(
        cls, views: Mapping[str, Features], costs: np.ndarray, families: Sequence[str], good: np.ndarray
    ) -> list["_Predictor"]:
        """Of one predictor a view those whose left-out errors of the rows `good` are about the lowest, in order."""
        short = Compression(costs).forward

        def error(predictor: "_Predictor") -> float:
            return float(np.abs(short(predictor.fitted.leave_one_out()) - short(costs))[good].mean())

        fitted = [
            cls(name, AccuracyPredictor(families, view.groups, view.tied).fit(view.columns, costs))
            for name, view in views.items()
        ]
        errors = np.array([error(predictor) for predictor in fitted])
        order = np.argsort(errors, kind="stable")[:_NUM_RANKS]
        return [fitted[row] for row in order if errors[row] <= _COMPARABLE * errors.min()]

    def predict(self, views: Mapping[str, Features], return_std: bool = False) -> Any:
        return self.fitted.predict(views[self.view].columns, return_std)


class _Model:
    """What the complete rows say: the measured, and a predictor for the cost of every expensive objective."""

    def __init__(
        self, problem: SearchProblem, rows: Sequence[Row], failed: Sequence[Row], *, families: Sequence[str]
    ) -> None:
        self._problem = problem
        self._features = GenotypeFeatures(problem.choices)
        self.measured = Measured.of(problem, rows)
        views, _ = self._views(self.measured.vectors, None)
        good = best_layers(self.measured.costs, math.ceil(_GOOD * len(rows)))
        self._predictors = {
            o.name: _Predictor.ranked(views, as_costs(self.measured.values, [o])[:, 0], families, good)
            for o in problem.expensive
        }
        self._fatal = self._described_as_none_of(views, failed)
        self._limits = (*problem.constraints, *(limit for part in problem.focus for limit in part.limits))
        self.box = focus_box(problem.focus, problem.objectives)
        keeps = self.measured.costs[self.measured.keeps]
        self.front = keeps[is_nondominated(keeps)]

    def score(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expected costs (N x M); violations of constraints and focus, and 1 for what is expected to fail (N x K)."""
        views, cheap = self._views(vectors, self._names(0))
        values = {**cheap, **{o.name: self._signed(o, views) for o in self._problem.expensive}}
        excess = violations(values, self._limits)
        if self._fatal:
            likes = [~outside(views[name].columns, fatal) for name, fatal in self._fatal.items()]
            excess = np.column_stack([excess, np.all(likes, axis=0)])
        return as_costs(values, self._problem.objectives), excess

    def predict(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expected costs and their standard deviations (both N x M), the mean of what the best predictors say, and of
        their variances; zero for what is computed."""
        said = list(self._said(vectors))
        if len(said) == 1:
            return said[0]
        costs, std = zip(*said, strict=True)
        return np.mean(costs, axis=0), np.sqrt(np.mean(np.square(std), axis=0))

    def _said(self, vectors: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The same by the predictors of each rank alone, the best first."""
        views, cheap = self._views(vectors, set().union(*map(self._names, range(self._num_ranks))))
        for rank in range(self._num_ranks):
            predictors = self._of_rank(rank)
            costs, std = np.empty((2, len(vectors), len(self._problem.objectives)))
            for column, objective in enumerate(self._problem.objectives):
                if objective.expensive:
                    costs[:, column], std[:, column] = predictors[objective.name].predict(views, return_std=True)
                else:
                    costs[:, column], std[:, column] = as_costs(cheap, [objective])[:, 0], 0.0
            yield costs, std

    def draws(
        self, costs: np.ndarray, std: np.ndarray, *, rng: np.random.Generator, rank: int = 0, num: int = _NUM_DRAWS
    ) -> Iterator[np.ndarray]:
        """What candidates may measure that predictors of this rank expect at `costs`, give or take `std` (each N x M).

        Off as left-out predictions beside theirs are, all of one measured candidate's errors together, so neither their
        size nor their shape is assumed; and by part of their deviations, which are larger where nothing was measured.
        """
        best, predictors = best_layers(self.measured.costs, _NUM_BEST), self._of_rank(rank)
        expected = self.measured.costs.copy()
        for column, objective in enumerate(self._problem.objectives):
            if objective.expensive:
                expected[:, column] = predictors[objective.name].fitted.leave_one_out()
        errors, among = (self.measured.costs - expected)[best], expected[best]
        nearest = range(1, min(_NUM_BESIDE, len(best)) + 1)
        _, beside = KDTree(_ranks(among, among)).query(_ranks(costs, among), k=nearest)
        rows = np.arange(len(costs))
        for _ in range(num):
            drawn = beside[rows, rng.integers(beside.shape[1], size=len(rows))]
            yield costs + errors[drawn] + _DRAWN_STD * std * rng.standard_normal(costs.shape)

    def draws_of_several(self, vectors: np.ndarray, *, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """`draws` for N vectors, by the best predictors in equal parts: each is wrong about others."""
        num = _NUM_DRAWS // self._num_ranks
        for rank, (costs, std) in enumerate(self._said(vectors)):
            yield from self.draws(costs, std, rng=rng, rank=rank, num=num)

    def suggest(self, vectors: np.ndarray) -> list[Suggestion]:
        """Suggestions with what the predictors expect."""
        if len(vectors) == 0:
            return []
        costs, std = self.predict(vectors)
        signs = [-1.0 if o.maximize else 1.0 for o in self._problem.objectives]
        expected = [(c, o.name) for c, o in enumerate(self._problem.objectives) if o.expensive]
        return [
            Suggestion(
                genotype=genotype,
                predicted={name: float(signs[column] * costs[row, column]) for column, name in expected},
                predicted_std={name: float(std[row, column]) for column, name in expected},
            )
            for row, genotype in enumerate(self._problem.decode(vectors))
        ]

    @property
    def _num_ranks(self) -> int:
        return max(map(len, self._predictors.values()), default=1)

    def _of_rank(self, rank: int) -> dict[str, _Predictor]:
        """A predictor of each expensive objective, 0 the best; where there are fewer, they take turns."""
        return {name: ranked[rank % len(ranked)] for name, ranked in self._predictors.items()}

    def _names(self, rank: int) -> set[str]:
        """What the predictors of this rank learned from."""
        return {predictor.view for predictor in self._of_rank(rank).values()}

    def _views(
        self, vectors: np.ndarray, names: Collection[str] | None
    ) -> tuple[dict[str, Features], dict[str, np.ndarray]]:
        """What predictors learn from, genes and descriptions, each with the cheap columns; and these columns.

        Of the descriptions only those in `names`, unless it is None.
        """
        cheap = self._problem.compute_cheap(vectors)
        logarithms = [Features(numeric_columns(cheap, len(vectors)), (len(cheap),))] if cheap else []
        views = {_GENES: self._features.features(vectors, cheap)}
        if names is None or any(name != _GENES for name in names):
            for name, parts in self._problem.compute_descriptions(vectors).items():
                if names is None or name in names:
                    views[name] = Features.joined([*map(self._features_of, parts), *logarithms])
        return views, cheap

    def _described_as_none_of(self, views: Mapping[str, Features], failed: Sequence[Row]) -> dict[str, np.ndarray]:
        """Of each description that predictors learned from the rows of failed candidates that no complete one has."""
        names = self._names(0) - {_GENES}
        if not failed or not names:
            return {}
        lost, _ = self._views(self._problem.encode([row.genotype for row in failed]), names)
        return {n: lost[n].columns[outside(lost[n].columns, views[n].columns)] for n in sorted(names)}

    def _features_of(self, part: np.ndarray | list[Genotype]) -> Features:
        if isinstance(part, list):
            return self._features.features(self._problem.encode(part))
        size = part.shape[1]
        return Features(part, (size,), [[column] for column in range(size)] if size <= _MAX_RELEVANCES else ())

    def _signed(self, objective: Objective, views: Mapping[str, Features]) -> np.ndarray:
        return self._predictors[objective.name][0].predict(views) * (-1.0 if objective.maximize else 1.0)


def _ranks(costs: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Rank of each cost among those of its column of `among`, 0 to 1, interpolated."""
    steps = np.linspace(0.0, 1.0, len(among))
    columns = [np.interp(cost, np.sort(known), steps) for cost, known in zip(costs.T, among.T, strict=True)]
    return np.stack(columns, axis=1)


def _choose(
    model: _Model,
    pool: Pool,
    known: np.ndarray,
    num: int,
    *,
    num_drawn: int,
    num_likely: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Up to `num` new vectors of `pool`, those of least violation when none is expected to keep them all.

    Of them `num_likely` are likeliest on the front, and `num_drawn` at random.
    """
    new = outside(pool.vectors, known)
    vectors, excess = pool.vectors[new], np.maximum(pool.violations[new], 0.0).sum(axis=1)
    if len(vectors) == 0:
        return vectors
    if excess.min() > 0:
        return vectors[np.argsort(excess, kind="stable")[:num]]
    vectors = vectors[excess <= 0]
    costs, std = model.predict(vectors)
    num_likely = min(num_likely, num - num_drawn)
    optimism = np.roll(_OPTIMISM_BESIDE_LIKELY, len(known) // num).tolist() if num_likely else _OPTIMISM
    chosen = _promising(costs, std, model, num - num_drawn - num_likely, optimism=optimism)
    if num_likely:
        rows = best_layers(costs - std, _NUM_LIKELY)
        likely = likely_batch(model.draws_of_several(vectors[rows], rng=rng), model.front, num)
        chosen += [row for row in rows[likely].tolist() if row not in chosen][: num - len(chosen)]
    if len(chosen) == num:
        return vectors[chosen]
    better = np.setdiff1d(best_layers(costs, int(_BETTER * len(costs))), chosen)
    return vectors[[*chosen, *rng.permutation(better)[: num - len(chosen)]]]


def _promising(costs: np.ndarray, std: np.ndarray, model: _Model, num: int, *, optimism: Sequence[float]) -> list[int]:
    """Up to `num` rows of `costs` that promise most hypervolume beyond what was measured."""
    front, box = model.front, model.box
    if costs.shape[1] == 2:
        return optimistic_batch(costs, std, front, np.resize(optimism, num).tolist(), box=box)
    chosen: list[int] = []
    for level in _LEVELS:
        rest = np.setdiff1d(np.arange(len(costs)), chosen)
        hoped = costs[rest] - level * std[rest]
        rows = greedy_batch(hoped, front, num - len(chosen), box=box)
        chosen += rest[rows].tolist()
        front = np.concatenate([front, hoped[rows]])
    return chosen


def _first_batch(problem: SearchProblem, known: np.ndarray, num: int, *, rng: np.random.Generator) -> np.ndarray:
    """Initial candidates or corners, then candidates far from them and from each other."""
    first = initial_vectors(problem) if problem.initial else feasible(problem, corner_vectors(problem))
    first = first[outside(first, known)][:num]
    rest = spread_new(problem, num - len(first), known=known, start=first, rng=rng)
    return np.concatenate([first, rest])
