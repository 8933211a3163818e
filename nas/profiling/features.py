"""Rows of a profile as numbers, to choose which are measured when time is short and to predict the others."""

import math
from collections.abc import Sequence

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor

from search_spaces import BlockSpec
from search_spaces.cost import block_cost

MIN_ROWS = 8
"""Measured rows without which nothing is predicted."""


def row_features(rows: Sequence[tuple[BlockSpec, str]]) -> np.ndarray:
    """Features of blocks in precisions, shape (R, F): logarithms of costs and sizes, options, kinds and precisions.

    Costs and sizes are multiply-accumulates, parameters, peak of activations, elements of input and output and their
    width and height; options are the numbers a block is described by.
    """
    names = sorted({name for spec, _ in rows for name, value in spec.args if isinstance(value, int | float)})
    kinds, precisions = sorted({spec.kind for spec, _ in rows}), sorted({precision for _, precision in rows})
    found = []
    for spec, precision in rows:
        cost, read, written = block_cost(spec), spec.reads[0].shape, spec.writes[0].shape
        sizes = [cost.macs, cost.num_params, cost.peak_activation_bytes, math.prod(read), math.prod(written)]
        sizes += [read[0], read[-1], written[0], written[-1]]
        options = {name: float(value) for name, value in spec.args if isinstance(value, int | float)}
        found.append(
            [float(np.log1p(size)) for size in sizes]
            + [float(np.log1p(abs(options.get(name, 0.0)))) for name in names]
            + [float(spec.kind == kind) for kind in kinds]
            + [float(precision == other) for other in precisions]
        )
    return np.array(found)


def informative_order(features_RF: np.ndarray) -> list[int]:
    """Rows in an order whose every start covers the others well: each is the farthest from all before it.

    Distances are between standardised features; the first row is the one nearest to the mean (Gonzalez, 1985).
    """
    spread_F = features_RF.std(axis=0)
    standard_RF = (features_RF - features_RF.mean(axis=0)) / np.where(spread_F > 0, spread_F, 1.0)
    order = [int((standard_RF**2).sum(axis=1).argmin())]
    distance_R = np.full(len(features_RF), np.inf)
    while len(order) < len(features_RF):
        distance_R = np.minimum(distance_R, ((standard_RF - standard_RF[order[-1]]) ** 2).sum(axis=1))
        distance_R[order] = -1.0  # rows with equal features are taken last, not twice
        order.append(int(distance_R.argmax()))
    return order


def predict_rows(features_RF: np.ndarray, latency_ms_R: np.ndarray) -> np.ndarray:
    """Latencies of all rows in milliseconds: those given, and predictions where `latency_ms_R` is NaN.

    Randomised trees on the logarithm (Geurts et al., 2006), as nn-Meter regresses kernels (Zhang et al., 2021).

    Raises:
        ValueError: fewer than `MIN_ROWS` rows are given.
    """
    known_R = np.isfinite(latency_ms_R)
    if known_R.sum() < MIN_ROWS:
        raise ValueError(f"{known_R.sum()} measured rows say too little about the others; give at least {MIN_ROWS}")
    if known_R.all():
        return latency_ms_R
    floor_ms = max(1e-6, 0.1 * float(np.median(latency_ms_R[known_R])))  # of rows too short to see
    trees = ExtraTreesRegressor(n_estimators=200, random_state=0)
    trees.fit(features_RF[known_R], np.log(np.maximum(latency_ms_R[known_R], 1e-3 * floor_ms) + floor_ms))
    predicted_ms_R = np.maximum(np.exp(trees.predict(features_RF)) - floor_ms, 0.0)
    return np.where(known_R, latency_ms_R, predicted_ms_R)
