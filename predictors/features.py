"""Genotypes as numbers a predictor can learn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces.space import Choice


@dataclass(frozen=True, slots=True)
class Features:
    """What a predictor may learn from, N x F, with the groups and tied sets of its columns (see `GaussianProcess`)."""

    columns: np.ndarray
    groups: tuple[int, ...]
    tied: Sequence[Sequence[int]] = ()

    @classmethod
    def joined(cls, parts: Sequence["Features"]) -> "Features":
        """One or more side by side."""
        starts = np.cumsum([0, *(part.columns.shape[1] for part in parts)])
        tied = [
            [c + int(first) for c in a_set] for first, part in zip(starts, parts, strict=False) for a_set in part.tied
        ]
        columns = np.concatenate([part.columns for part in parts], axis=1)
        return cls(columns, tuple(size for part in parts for size in part.groups), tied)


class GenotypeFeatures:
    """Turns vectors of gene indices (N x number of choices) into features (N x F, float64), in `groups`.

    The first group has, for each gene with two or more values, one column a value (1 where the gene has it), and where
    three or more values are numbers also the rank from 0 to 1. The second has one column for each value that several
    genes share (those with equal values): how many of them have it. Alike genes then teach each other. The third holds
    the `numeric` columns, such as MACs, on a logarithmic scale, signs kept.

    Genotypes must be canonical: an inactive gene then has its first value in every equal network, and what its absence
    does is learned from the gene that switched it off.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        self.choices = tuple(choices)
        values = [c.values for c in choices]
        self._shared = [group for group in dict.fromkeys(values) if len(group) > 1 and values.count(group) > 1]
        self._members = [np.flatnonzero([v == group for v in values]) for group in self._shared]

    def transform(self, vectors: np.ndarray, numeric: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """Features of `vectors`, with N numbers of each name in `numeric`."""
        columns = []
        for gene, choice in enumerate(self.choices):
            size = len(choice.values)
            if size > 1:
                columns.append(vectors[:, gene, None] == np.arange(size))
            if size > 2 and _is_ordered(choice):
                columns.append(vectors[:, gene, None] / (size - 1))
        for group, members in zip(self._shared, self._members, strict=True):
            counts = np.stack([(vectors[:, members] == value).sum(axis=1) for value in range(len(group))], axis=1)
            columns.append(counts / np.sqrt(len(members)))
        columns.append(numeric_columns(numeric or {}, len(vectors)))
        return np.concatenate(columns, axis=1).astype(np.float64)

    def features(self, vectors: np.ndarray, numeric: Mapping[str, np.ndarray] | None = None) -> Features:
        """`transform` with `groups` and `tied`."""
        return Features(self.transform(vectors, numeric), self.groups(len(numeric or {})), self.tied())

    def groups(self, num_numeric: int = 0) -> tuple[int, ...]:
        """Number of columns of each group that isn't empty."""
        own = sum(len(c.values) + (len(c.values) > 2 and _is_ordered(c)) for c in self.choices if len(c.values) > 1)
        return tuple(size for size in (own, sum(map(len, self._shared)), num_numeric) if size)

    def tied(self) -> list[list[int]]:
        """Columns of the first group that a predictor may weigh together: those of each gene, those of each shared
        value."""
        sets: list[list[int]] = []
        shared: dict[tuple[object, int], list[int]] = {}
        column = 0
        for choice in self.choices:
            size = len(choice.values)
            if size < 2:
                continue
            sets.append(list(range(column, column + size + (size > 2 and _is_ordered(choice)))))
            if choice.values in self._shared:
                for value in range(size):
                    shared.setdefault((choice.values, value), []).append(column + value)
            column += len(sets[-1])
        return [*sets, *shared.values()]


def numeric_columns(numeric: Mapping[str, np.ndarray], num_rows: int) -> np.ndarray:
    """A column for each of `numeric` (of `num_rows` numbers each), on a logarithmic scale, signs kept."""
    logarithms = [np.sign(values) * np.log1p(np.abs(values)) for values in numeric.values()]
    return np.stack(logarithms, axis=1) if logarithms else np.zeros((num_rows, 0))


def _is_ordered(choice: Choice) -> bool:
    return all(isinstance(value, int | float) for value in choice.values)
