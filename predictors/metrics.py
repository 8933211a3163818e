"""How good a predictor is: rank correlation and error, on candidates it never saw."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

MIN_POINTS = 3


def prediction_metrics(true: Sequence[float] | np.ndarray, predicted: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Compare `predicted` with `true`, both of shape (N,), in one unit.

    Returns:
        mape_pct: mean absolute error in percent of the truth; lower is better.
        within_10pct: percent of the points predicted to within 10% of the truth; higher is better.
        spearman, kendall: rank correlations (Kendall's tau-b), 1 is best; 0 where either side is constant.
        mae: mean absolute error in the unit of the inputs; lower is better.

    Points whose truth is 0 have no relative error: they count in all but the first two.

    Raises:
        ValueError: lengths differ, there are fewer than three points, a value isn't finite, or every truth is 0.
    """
    true_N, predicted_N = np.asarray(true, dtype=float), np.asarray(predicted, dtype=float)
    if true_N.ndim != 1 or true_N.shape != predicted_N.shape:
        raise ValueError(f"shapes {true_N.shape} and {predicted_N.shape} must be one equal length")
    if len(true_N) < MIN_POINTS:
        raise ValueError(f"{len(true_N)} points say nothing about a predictor; give at least {MIN_POINTS}")
    if not (np.isfinite(true_N).all() and np.isfinite(predicted_N).all()):
        raise ValueError("values to compare must be finite; drop the failed candidates first")
    error_N = np.abs(predicted_N - true_N)
    nonzero_N = true_N != 0
    if not nonzero_N.any():
        raise ValueError("every true value is 0, so there is no relative error; compare other candidates")
    relative_N = error_N[nonzero_N] / np.abs(true_N[nonzero_N])
    constant = np.ptp(true_N) == 0 or np.ptp(predicted_N) == 0
    return {
        "mape_pct": float(100 * relative_N.mean()),
        "within_10pct": float(100 * (relative_N <= 0.1).mean()),
        "spearman": 0.0 if constant else float(stats.spearmanr(true_N, predicted_N).statistic),
        "kendall": 0.0 if constant else float(stats.kendalltau(true_N, predicted_N).statistic),
        "mae": float(error_N.mean()),
    }
