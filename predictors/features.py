"""Genotypes as numbers a predictor can learn from."""

from collections.abc import Mapping, Sequence

import numpy as np

from search_spaces.space import Choice


class GenotypeFeatures:
    """Turns vectors of gene indices (N x number of choices) into features (N x F, float64), in `groups`.

    The first group has, for each gene with two or more values, one column a value (1 where the gene has it), and where
    three or more values are numbers also the rank from 0 to 1. The second has one column for each value that several
    genes share (those with equal values): how many of them have it. Alike genes then teach each other. The third holds
    the `numeric` columns, such as MACs, on a logarithmic scale, signs kept, each scaled by its range in the choice.

    `active` (N x number of choices, bool) tells which genes say anything; the columns of the others are zero. Without it
    genotypes must be canonical: an inactive gene then has its first value in every equal network, and what its
    absence does is learned from the gene that switched it off.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        self.choices = tuple(choices)
        values = [c.values for c in choices]
        self._shared = [group for group in dict.fromkeys(values) if len(group) > 1 and values.count(group) > 1]
        self._members = [np.flatnonzero([v == group for v in values]) for group in self._shared]

    def transform(
        self,
        vectors: np.ndarray,
        numeric: Mapping[str, np.ndarray] | None = None,
        active: np.ndarray | None = None,
    ) -> np.ndarray:
        """Features of `vectors`, with N numbers of each name in `numeric`."""
        shown = np.ones(vectors.shape, bool) if active is None else active
        columns = []
        for gene, choice in enumerate(self.choices):
            size = len(choice.values)
            if size > 1:
                columns.append((vectors[:, gene, None] == np.arange(size)) & shown[:, gene, None])
            if size > 2 and _is_ordered(choice):
                columns.append((vectors[:, gene] * shown[:, gene] / (size - 1))[:, None])
        for group, members in zip(self._shared, self._members, strict=True):
            chosen = np.where(shown[:, members], vectors[:, members], -1)
            counts = np.stack([(chosen == value).sum(axis=1) for value in range(len(group))], axis=1)
            columns.append(counts / np.sqrt(len(members)))
        for values in (numeric or {}).values():
            columns.append((np.sign(values) * np.log1p(np.abs(values)))[:, None])
        if not columns:
            return np.zeros((len(vectors), 0))
        return np.concatenate(columns, axis=1).astype(np.float64)

    def groups(self, num_numeric: int = 0) -> tuple[int, ...]:
        """Number of columns of each group that isn't empty."""
        own = sum(len(c.values) + (len(c.values) > 2 and _is_ordered(c)) for c in self.choices if len(c.values) > 1)
        return tuple(size for size in (own, sum(map(len, self._shared)), num_numeric) if size)


def _is_ordered(choice: Choice) -> bool:
    return all(isinstance(value, int | float) for value in choice.values)
