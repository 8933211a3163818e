"""The problem a searcher sees: choices, objectives, constraints, and what can be computed without measuring."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from nas.errors import UserError
from nas.search.objectives import Constraint, Focus, Objective, check_name
from search_spaces.space import Choice, GeneValue, Genotype

CheapColumns = Callable[[list[Genotype]], Mapping[str, np.ndarray]]
"""From N genotypes to columns of N numbers."""
Description = Sequence[np.ndarray | list[Genotype]]
"""Of N networks: arrays of N rows, the columns of one array being features of one kind, and lists of N genotypes."""
Describe = Callable[[list[Genotype]], Mapping[str, Description]]
"""From N genotypes to descriptions by name."""


@dataclass(frozen=True, kw_only=True)
class SearchProblem:
    """Vectors are genotypes as numbers: N x (number of choices) integers, each the index of a value of its choice."""

    choices: tuple[Choice, ...]
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    """On objectives, or on further columns that `cheap` computes."""
    focus: tuple[Focus, ...] = ()
    """Ranges of objectives to prefer; at most one an objective."""
    canonical: Callable[[Genotype], Genotype] | None = None
    """Maps genotypes of equal networks to one genotype."""
    cheap: CheapColumns | None = None
    """Computes every objective that is not expensive, and perhaps more columns."""
    describe: Describe | None = None
    """Says what networks are made of, for predictors, where their genes say it badly."""
    initial: tuple[Genotype, ...] = ()
    """Genotypes to measure first, such as the smallest and largest network."""

    def __post_init__(self) -> None:
        _check_distinct("choice", [c.name for c in self.choices])
        _check_distinct("objective", [o.name for o in self.objectives])
        if not self.choices:
            raise UserError("a search needs at least one choice; give a Choice with its values")
        if len(self.objectives) < 2:
            raise UserError(f"a search needs two or more objectives, not {len(self.objectives)}; add one, such as macs")
        for objective in self.objectives:
            if not objective.expensive and objective.name not in self.cheap_names:
                raise UserError(f"objective {objective.name!r} is declared cheap, but `cheap` gives no such column")
        for constraint in self.constraints:
            known = [o.name for o in self.objectives] + [n for n in self.cheap_names if n not in self._objective_names]
            check_name(constraint.objective, known, kind="objective")
        _check_distinct("focus", [f.objective for f in self.focus])
        for part in self.focus:
            check_name(part.objective, [o.name for o in self.objectives], kind="objective")
        for genotype in self.initial:
            self.encode([genotype])

    @cached_property
    def sizes(self) -> np.ndarray:
        """Number of values of each choice."""
        return np.array([len(c.values) for c in self.choices])

    @cached_property
    def num_raw(self) -> int:
        """Number of genotypes, equal networks counted as often as they occur."""
        return math.prod(len(c.values) for c in self.choices)

    @cached_property
    def cheap_names(self) -> tuple[str, ...]:
        """Columns that `cheap` computes."""
        if self.cheap is None:
            return ()
        first = {c.name: c.values[0] for c in self.choices}
        return tuple(self.cheap([first if self.canonical is None else self.canonical(first)]))

    @property
    def expensive(self) -> tuple[Objective, ...]:
        return tuple(o for o in self.objectives if o.expensive)

    @property
    def cheap_constraints(self) -> tuple[Constraint, ...]:
        """Those that can be checked without a measurement."""
        return tuple(c for c in self.constraints if c.objective in self.cheap_names)

    def encode(self, genotypes: Sequence[Mapping[str, GeneValue]]) -> np.ndarray:
        """Vectors of `genotypes`. Raises `UserError` where a gene is missing or has a value that is not on offer."""
        vectors = np.empty((len(genotypes), len(self.choices)), np.int64)
        for column, (choice, positions) in enumerate(zip(self.choices, self._positions, strict=True)):
            try:
                vectors[:, column] = [positions[genotype[choice.name]] for genotype in genotypes]
            except KeyError:
                raise _misfit(choice, genotypes) from None
        return vectors

    def decode(self, vectors: np.ndarray) -> list[Genotype]:
        """Genotypes of `vectors`, with the values of the choices as they were given."""
        names = [c.name for c in self.choices]
        values = [c.values for c in self.choices]
        return [
            {name: options[i] for name, options, i in zip(names, values, row, strict=True)} for row in vectors.tolist()
        ]

    def canonicalise(self, vectors: np.ndarray) -> np.ndarray:
        """Canonical form of each of `vectors`."""
        if self.canonical is None or len(vectors) == 0:
            return vectors
        return self.encode([self.canonical(g) for g in self.decode(vectors)])

    def compute_cheap(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """The columns of `cheap` for N `vectors`, N numbers each."""
        if self.cheap is None:
            return {}
        if len(vectors) == 0:
            return {name: np.zeros(0) for name in self.cheap_names}
        return {name: np.asarray(v, float) for name, v in self.cheap(self.decode(vectors)).items()}

    def compute_descriptions(self, vectors: np.ndarray) -> Mapping[str, Description]:
        """The descriptions of N `vectors`, N >= 1.

        Raises `UserError` where one has no name or no part, a part hasn't a row a genotype, or an array isn't finite.
        """
        descriptions = {} if self.describe is None else self.describe(self.decode(vectors))
        for name, parts in descriptions.items():
            if not name or len(parts) == 0:
                raise UserError(f"`describe` gave {len(parts)} parts as {name!r}; give both or drop it")
            for part in parts:
                _check_part(name, part, len(vectors))
        return descriptions

    def enumerate(self) -> np.ndarray:
        """All distinct canonical vectors. Only sensible where `num_raw` is small."""
        return self._enumerated

    @property
    def _objective_names(self) -> set[str]:
        return {o.name for o in self.objectives}

    @cached_property
    def _positions(self) -> list[dict[GeneValue, int]]:
        return [{value: i for i, value in enumerate(c.values)} for c in self.choices]

    @cached_property
    def _enumerated(self) -> np.ndarray:
        vectors = np.array(list(product(*(range(n) for n in self.sizes))), np.int64)
        return distinct(self.canonicalise(vectors))


def distinct(vectors: np.ndarray) -> np.ndarray:
    """`vectors` without repeated rows, in order of first occurrence."""
    _, first = np.unique(vectors, axis=0, return_index=True)
    return vectors[np.sort(first)]


def outside(rows: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Mask of the rows of `rows` that are no row of `known`."""
    dtype = np.result_type(rows, known)
    seen = {row.tobytes() for row in np.ascontiguousarray(known, dtype)}
    return np.array([row.tobytes() not in seen for row in np.ascontiguousarray(rows, dtype)], bool)


def _misfit(choice: Choice, genotypes: Sequence[Mapping[str, GeneValue]]) -> UserError:
    """What is wrong with the first genotype that has no value of `choice`."""
    genotype = next(g for g in genotypes if choice.name not in g or g[choice.name] not in choice.values)
    if choice.name not in genotype:
        return UserError(f"a genotype lacks the gene {choice.name!r}; every choice needs a value")
    return UserError(f"gene {choice.name!r} is {genotype[choice.name]!r}, but must be one of {list(choice.values)}")


def _check_part(name: str, part: np.ndarray | list[Genotype], num: int) -> None:
    if isinstance(part, list):
        if len(part) != num or not all(isinstance(genotype, Mapping) for genotype in part):
            raise UserError(f"`describe` gave a list of {len(part)} as {name!r} of {num} genotypes; give one each")
    elif part.ndim != 2 or len(part) != num or part.shape[1] == 0 or not np.isfinite(part).all():
        raise UserError(
            f"`describe` gave an array of shape {part.shape} as {name!r} of {num} genotypes; give one with a row "
            "a genotype and finite numbers in one column or more"
        )


def _check_distinct(kind: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{kind} {twice[0]!r} is given twice; names must be distinct")
