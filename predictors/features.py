"""Genotypes as numbers a predictor can learn from."""

from collections.abc import Mapping, Sequence

import numpy as np

from search_spaces.space import Choice


class GenotypeFeatures:
    """Turns vectors of gene indices (N x number of choices) into features (N x `num_features`, float64).

    Each gene with two or more values gives one column a value (1 where the gene has it), and one with three or more
    also its rank from 0 to 1, since most genes are sizes. Genotypes must be canonical: an inactive gene then has its
    first value in every equal network, and what its absence does is learned from the gene that switched it off.
    `numeric` columns, such as MACs, are appended on a logarithmic scale, signs kept.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        self.sizes = np.array([len(c.values) for c in choices])

    def transform(self, vectors: np.ndarray, numeric: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """Features of `vectors`, with N numbers of each name in `numeric`."""
        columns = []
        for gene, size in enumerate(self.sizes):
            if size > 1:
                columns.append(vectors[:, gene, None] == np.arange(size))
            if size > 2:
                columns.append(vectors[:, gene, None] / (size - 1))
        for values in (numeric or {}).values():
            columns.append((np.sign(values) * np.log1p(np.abs(values)))[:, None])
        if not columns:
            return np.zeros((len(vectors), 0))
        return np.concatenate(columns, axis=1).astype(np.float64)
