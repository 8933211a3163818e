"""The latency of a network: the sum of its blocks' measured rows, corrected by a few measured whole networks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import NotFittedError

from hardware_profiles.profile import HardwareProfile

BlockSequence = Sequence[tuple[str, str]]
"""A network: (block key, precision) of each block, in order."""

PADDING = -1
"""Fills the rows of encoded networks shorter than the longest."""

MIN_NETWORKS = 3
"""A scale is fitted from this many networks on."""

MIN_NETWORKS_FOR_FEATURES = 10
"""Fewer than this can't show that anything but the scale differs."""

NEEDED_GAIN = 0.95
"""The ridge is used when it leaves at most this share of the scale's leave-one-out error: less is luck."""

STRENGTHS = (1.0, 3.0, 10.0, 30.0)
"""Ridge strengths tried, in networks: a standardised weight is halved when as many networks speak for it."""

HUBER_SIGMAS = 1.345
"""Residuals beyond this many standard deviations count less; 95% efficient on normal noise (Huber, 1964)."""


class LatencyPredictor:
    """Predicts the latency in milliseconds of networks whose blocks are in a profile, in the style of scikit-learn.

    Before `fit` a prediction is the plain sum: one call of the runtime and each block's row net of the call. `fit`
    learns from whole networks measured on the same target what the sum gets wrong, in shares of the sum: a scale, and
    where leave-one-out shows that it pays, a ridge on the number of blocks, the time and number of blocks of each
    precision and the number of places where the precision changes. Both are robust to a few bad measurements.
    """

    def __init__(self, profile: HardwareProfile) -> None:
        self.profile = profile
        self._precisions = profile.precisions
        self._latency_ms_R = np.array([row.latency_ms for row in profile.rows])
        self._precision_R = np.array([profile.precisions.index(row.precision) for row in profile.rows])
        self._correction: _Correction | None = None

    @classmethod
    def from_profile(cls, profile: HardwareProfile) -> "LatencyPredictor":
        """A predictor fitted on the profile's networks for fitting; the plain sum if it has fewer than three."""
        networks = [network for network in profile.networks if network.role == "fit"]
        predictor = cls(profile)
        if len(networks) < MIN_NETWORKS:
            return predictor
        return predictor.fit([network.blocks for network in networks], [network.latency_ms for network in networks])

    def encode(self, networks: Sequence[BlockSequence]) -> np.ndarray:
        """Row numbers of the networks' blocks: int64 of shape (N, longest network), filled with `PADDING`.

        Raises:
            ProfileError: a block isn't in the profile.
        """
        rows = [[self.profile.row(key, precision) for key, precision in network] for network in networks]
        rows_NB = np.full((len(rows), max(map(len, rows), default=0)), PADDING)
        for index, row in enumerate(rows):
            rows_NB[index, : len(row)] = row
        return rows_NB

    def fit(self, networks: Sequence[BlockSequence], latency_ms: Sequence[float] | np.ndarray) -> "LatencyPredictor":
        """Learn the correction from whole networks and their measured latency, call included.

        Raises:
            ProfileError: a block isn't in the profile.
            ValueError: fewer than three networks, another number of latencies, or one that isn't positive and finite.
        """
        measured_ms_N = np.asarray(latency_ms, dtype=float)
        if len(networks) < MIN_NETWORKS or measured_ms_N.shape != (len(networks),):
            raise ValueError(
                f"{len(networks)} networks and latencies of shape {measured_ms_N.shape} can't be fitted; "
                f"give one latency a network, for at least {MIN_NETWORKS}"
            )
        if not (np.isfinite(measured_ms_N).all() and (measured_ms_N > 0).all()):
            raise ValueError("measured latencies must be positive and finite; drop the failed networks first")
        rows_NB = self.encode(networks)
        sum_ms_N = self._sum_ms(rows_NB)
        self._correction = _fit_correction(self._features(rows_NB, sum_ms_N), measured_ms_N / sum_ms_N)
        return self

    def predict(self, networks: Sequence[BlockSequence]) -> np.ndarray:
        """Predicted latency in milliseconds, shape (N,), call included."""
        return self.predict_encoded(self.encode(networks))

    def predict_with_std(self, networks: Sequence[BlockSequence]) -> tuple[np.ndarray, np.ndarray]:
        """Predicted latency and its standard deviation, both in milliseconds and of shape (N,).

        The deviation is the leave-one-out error of the fit, the same share of each prediction.

        Raises:
            NotFittedError: nothing was fitted, so the error isn't known.
        """
        if self._correction is None:
            raise NotFittedError("the error of a plain sum is unknown; fit the predictor on measured networks first")
        predicted_ms_N = self.predict(networks)
        return predicted_ms_N, self._correction.relative_std * predicted_ms_N

    def predict_encoded(self, rows_NB: np.ndarray) -> np.ndarray:
        """What `predict` returns, for networks already encoded (by `encode`, or by the caller's own table of rows)."""
        sum_ms_N = self._sum_ms(rows_NB)
        if self._correction is None:
            return sum_ms_N
        return sum_ms_N * self._correction.ratio(self._features(rows_NB, sum_ms_N))

    def linear_form(self, precision: str) -> "LinearLatency":
        """What `predict` returns for networks whose blocks all have one precision, for programs that need it linear."""
        call_ms, correction = self.profile.call_overhead_ms, self._correction
        if correction is None:
            return LinearLatency(call_ms=call_ms, fixed_ms=call_ms, per_block_ms=0.0, per_ms=1.0)
        slope_F = correction.weights / correction.scale
        ratio = correction.intercept - float(correction.mean @ slope_F)
        column = 2 + 2 * self._precisions.index(precision)  # as `_features` has them
        by_time, by_count = slope_F[column : column + 2] if len(self._precisions) > 1 else (0.0, 0.0)
        lowest, highest = correction.bounds
        return LinearLatency(
            call_ms=call_ms,
            fixed_ms=call_ms * ratio,
            per_block_ms=float(slope_F[0] + by_count),
            per_ms=float(ratio + by_time),
            lowest_ratio=lowest,
            highest_ratio=highest,
        )

    def _sum_ms(self, rows_NB: np.ndarray) -> np.ndarray:
        padded_ms = np.append(self._latency_ms_R, 0.0)  # PADDING is the last entry
        return self.profile.call_overhead_ms + padded_ms[rows_NB].sum(axis=1)

    def _features(self, rows_NB: np.ndarray, sum_ms_N: np.ndarray) -> np.ndarray:
        """What may change the ratio of measured to summed latency; times in units of the sum, shape (N, features)."""
        padded_ms = np.append(self._latency_ms_R, 0.0)
        precision_NB = np.append(self._precision_R, -1)[rows_NB]
        present_NB = rows_NB != PADDING
        changes_N = ((precision_NB[:, 1:] != precision_NB[:, :-1]) & present_NB[:, 1:] & present_NB[:, :-1]).sum(axis=1)
        columns = [present_NB.sum(axis=1) / sum_ms_N, changes_N / sum_ms_N]
        if len(self._precisions) > 1:
            ms_NB = padded_ms[rows_NB]
            for precision in range(len(self._precisions)):
                mask_NB = precision_NB == precision
                columns += [(ms_NB * mask_NB).sum(axis=1) / sum_ms_N, mask_NB.sum(axis=1) / sum_ms_N]
        return np.stack(columns, axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearLatency:
    """Predicted latency of networks in one precision: fixed + blocks x per_block + (sum of blocks' rows) x per_ms.

    Its ratio to the plain sum, the call included, is cut off at the two bounds.
    """

    call_ms: float
    fixed_ms: float
    per_block_ms: float
    per_ms: float
    lowest_ratio: float = 0.0
    highest_ratio: float = np.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class _Correction:
    """A fitted ratio of measured to summed latency."""

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    intercept: float
    bounds: tuple[float, float]
    """Ratios outside, reached only by extrapolation, are cut off."""
    relative_std: float

    def ratio(self, features_NF: np.ndarray) -> np.ndarray:
        standard_NF = (features_NF - self.mean) / self.scale
        return np.clip(self.intercept + standard_NF @ self.weights, *self.bounds)


def _fit_correction(features_NF: np.ndarray, ratio_N: np.ndarray) -> _Correction:
    """Choose between the scale alone and ridges of several strengths by leave-one-out error."""
    mean_F, scale_F = features_NF.mean(axis=0), features_NF.std(axis=0)
    informative_F = scale_F > 1e-9 * np.abs(mean_F)
    scale_F = np.where(informative_F, scale_F, 1.0)
    standard_NF = np.where(informative_F, (features_NF - mean_F) / scale_F, 0.0)
    best_strength = np.inf
    best_error_N = _leave_one_out(standard_NF, ratio_N, np.inf)
    best_error = NEEDED_GAIN * np.abs(best_error_N).mean()
    if len(ratio_N) >= MIN_NETWORKS_FOR_FEATURES:
        for strength in STRENGTHS:
            error_N = _leave_one_out(standard_NF, ratio_N, strength)
            if np.abs(error_N).mean() < best_error:
                best_strength, best_error_N, best_error = strength, error_N, np.abs(error_N).mean()
    intercept, weights_F = _robust_ridge(standard_NF, ratio_N, best_strength)
    lowest, highest = float(ratio_N.min()), float(ratio_N.max())
    return _Correction(
        mean=mean_F,
        scale=scale_F,
        weights=np.where(informative_F, weights_F, 0.0),
        intercept=intercept,
        bounds=(max(lowest / 2, 2 * lowest - highest), 2 * highest - lowest),
        relative_std=float(np.sqrt(np.mean(best_error_N**2)) / np.median(ratio_N)),
    )


def _leave_one_out(standard_NF: np.ndarray, ratio_N: np.ndarray, strength: float) -> np.ndarray:
    """Error of each network's ratio when all others are fitted."""
    errors = []
    for index in range(len(ratio_N)):
        others = np.arange(len(ratio_N)) != index
        intercept, weights_F = _robust_ridge(standard_NF[others], ratio_N[others], strength)
        errors.append(intercept + standard_NF[index] @ weights_F - ratio_N[index])
    return np.array(errors)


def _robust_ridge(standard_NF: np.ndarray, ratio_N: np.ndarray, strength: float) -> tuple[float, np.ndarray]:
    """Intercept and weights of a ridge with Huber's loss, by iterated reweighting; `strength` inf fits no weights."""
    num_features = standard_NF.shape[1] if np.isfinite(strength) else 0
    design_NF = np.column_stack([np.ones(len(ratio_N)), standard_NF[:, :num_features]])
    penalty_FF = np.diag([0.0] + [strength] * num_features)
    importance_N = np.ones(len(ratio_N))
    solution_F = np.zeros(1 + num_features)
    for _ in range(10):
        weighted_NF = importance_N[:, None] * design_NF
        solution_F = np.linalg.solve(design_NF.T @ weighted_NF + penalty_FF, weighted_NF.T @ ratio_N)
        residual_N = np.abs(ratio_N - design_NF @ solution_F)
        limit = HUBER_SIGMAS * 1.4826 * np.median(residual_N) + 1e-12
        importance_N = limit / np.maximum(residual_N, limit)
    weights_F = np.zeros(standard_NF.shape[1])
    weights_F[:num_features] = solution_F[1:]
    return float(solution_F[0]), weights_F
