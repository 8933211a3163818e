"""The latency of a network: the sum of its blocks' measured rows, corrected by some measured whole networks."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.polynomial import Polynomial
from sklearn.exceptions import NotFittedError

from hardware_profiles.profile import HardwareProfile
from predictors.grouped_ridge import GroupedRidge

BlockSequence = Sequence[tuple[str, str]]
"""A network: (block key, precision) of each block, in order."""

PADDING = -1
"""Fills the rows of encoded networks shorter than the longest."""

MIN_NETWORKS = 3
"""A scale is fitted from this many networks on."""

MIN_NETWORKS_FOR_FEATURES = 10
"""Fewer than this can't show that anything but the scale differs."""

NUM_SIZE_FEATURES = 3
"""Powers of the logarithm of a network's size: what a cache doesn't hold rises like an S."""

MIN_SIZE_MB = 1e-6
"""Of a network, so that its logarithm is finite."""

HUBER_SIGMAS = 1.345
"""Residuals beyond this many standard deviations count less; 95% efficient on normal noise (Huber, 1964)."""

NUM_REWEIGHTINGS = 5


class LatencyPredictor:
    """Predicts the latency in milliseconds of networks whose blocks are in a profile, in the style of scikit-learn.

    Before `fit` a prediction is the plain sum: one call of the runtime and each block's row net of the call. `fit`
    learns from whole networks measured on the same target what the sum gets wrong, in shares of the sum: a
    `GroupedRidge` on the features of `_row_features`, the number of places where the precision changes, and the size of
    the network: a block that is timed alone finds its weights in a cache that not all of a large network fits into. It
    is robust to a few bad measurements.
    """

    def __init__(self, profile: HardwareProfile) -> None:
        self.profile = profile
        self._latency_ms_R = np.array([row.latency_ms for row in profile.rows])
        self._size_mb_R = np.array([row.size_bytes / 1e6 for row in profile.rows])
        self._precision_R = np.array([profile.precisions.index(row.precision) for row in profile.rows])
        features = _row_features(profile)
        self._features_RF = np.hstack(features)
        self._groups = [*(group_RF.shape[1] for group_RF in features), 1, NUM_SIZE_FEATURES]
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
        self._correction = _fit_correction(self._features(rows_NB, sum_ms_N), measured_ms_N / sum_ms_N, self._groups)
        return self

    def predict(self, networks: Sequence[BlockSequence]) -> np.ndarray:
        """Predicted latency in milliseconds, shape (N,), call included."""
        return self.predict_encoded(self.encode(networks))

    def predict_with_std(self, networks: Sequence[BlockSequence]) -> tuple[np.ndarray, np.ndarray]:
        """Predicted latency and its standard deviation, both in milliseconds and of shape (N,).

        The deviation is that of the fit's residuals together with how little the fit knows of such a network.

        Raises:
            NotFittedError: nothing was fitted, so the error isn't known.
        """
        if self._correction is None:
            raise NotFittedError("the error of a plain sum is unknown; fit the predictor on measured networks first")
        rows_NB = self.encode(networks)
        sum_ms_N = self._sum_ms(rows_NB)
        return self.predict_encoded(rows_NB), sum_ms_N * self._correction.std(self._features(rows_NB, sum_ms_N))

    def predict_encoded(self, rows_NB: np.ndarray) -> np.ndarray:
        """What `predict` returns, for networks already encoded (by `encode`, or by the caller's own table of rows)."""
        sum_ms_N, correction = self._sum_ms(rows_NB), self._correction
        if correction is None:
            return sum_ms_N
        fixed_ms = correction.base * self.profile.call_overhead_ms
        linear_ms_N = fixed_ms + _sum_over_blocks(self._corrected_ms(), rows_NB)
        linear_ms_N += correction.change_ms * self._num_changes(rows_NB)
        linear_ms_N += correction.size_ratio(_sum_over_blocks(self._size_mb_R, rows_NB)) * sum_ms_N
        lowest, highest = correction.bounds
        return np.clip(linear_ms_N, lowest * sum_ms_N, highest * sum_ms_N)

    def linear_form(self) -> "LinearLatency":
        """What `predict` returns for networks whose blocks all have one precision, for programs that need it linear."""
        call_ms, correction = self.profile.call_overhead_ms, self._correction
        if correction is None:
            return LinearLatency(call_ms=call_ms, fixed_ms=call_ms, rows_ms=self._latency_ms_R)
        lowest, highest = correction.bounds
        return LinearLatency(
            call_ms=call_ms,
            fixed_ms=correction.base * call_ms,
            rows_ms=self._corrected_ms(),
            size_slope=correction.size_slope,
            lowest_ratio=lowest,
            highest_ratio=highest,
        )

    def _corrected_ms(self) -> np.ndarray:
        """What each row adds to a prediction, in milliseconds."""
        assert self._correction is not None
        return self._correction.base * self._latency_ms_R + self._features_RF @ self._correction.row_slope

    def _sum_ms(self, rows_NB: np.ndarray) -> np.ndarray:
        return self.profile.call_overhead_ms + _sum_over_blocks(self._latency_ms_R, rows_NB)

    def _num_changes(self, rows_NB: np.ndarray) -> np.ndarray:
        precision_NB = np.append(self._precision_R, -1)[rows_NB]
        present_NB = rows_NB != PADDING
        return ((precision_NB[:, 1:] != precision_NB[:, :-1]) & present_NB[:, 1:] & present_NB[:, :-1]).sum(axis=1)

    def _features(self, rows_NB: np.ndarray, sum_ms_N: np.ndarray) -> np.ndarray:
        """What may change the ratio of measured to summed latency: F + 1 columns a unit of the sum, then the size's."""
        padded_RF = np.vstack([self._features_RF, np.zeros(self._features_RF.shape[1])])
        sums_NF = np.zeros((len(rows_NB), padded_RF.shape[1]))
        for rows_N in rows_NB.T:
            sums_NF += padded_RF[rows_N]
        added_NF = np.column_stack([sums_NF, self._num_changes(rows_NB)]) / sum_ms_N[:, None]
        return np.hstack([added_NF, _size_features(_sum_over_blocks(self._size_mb_R, rows_NB))])


def _sum_over_blocks(values_R: np.ndarray, rows_NB: np.ndarray) -> np.ndarray:
    return np.append(values_R, 0.0)[rows_NB].sum(axis=1)  # PADDING is the last entry


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearLatency:
    """Predicted latency of networks of equal size in one precision: fixed + the sum of `rows_ms` over the blocks.

    The size adds `size_ratio` times the plain sum, the call included. The ratio to this is cut off at the two bounds.
    """

    call_ms: float
    fixed_ms: float
    rows_ms: np.ndarray
    """One for each of the profile's rows."""
    size_slope: np.ndarray = field(default_factory=lambda: np.zeros(NUM_SIZE_FEATURES))
    lowest_ratio: float = 0.0
    highest_ratio: float = np.inf

    def size_ratio(self, size_mb: float) -> float:
        """What the size adds to the ratio of prediction to sum."""
        return float(_size_features(np.array([size_mb]))[0] @ self.size_slope)

    def least_size_ratio(self, low_mb: float, high_mb: float) -> float:
        """The least that any size between these adds to the ratio."""
        logs = np.log([low_mb, high_mb])
        turns = Polynomial([0.0, *self.size_slope]).deriv().roots()
        inside = np.clip(turns[np.isreal(turns)].real, *logs)
        return min(self.size_ratio(size_mb) for size_mb in np.exp([*logs, *inside]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Correction:
    """A fitted ratio of measured to summed latency: base + features @ slope."""

    base: float
    slope_F: np.ndarray
    center_F: np.ndarray
    covariance_FF: np.ndarray
    """Of the slopes, as far as they are unknown."""
    noise: float
    """Variance of the ratio of a network around its prediction."""
    bounds: tuple[float, float]
    """Ratios outside, reached only by extrapolation, are cut off."""

    @property
    def row_slope(self) -> np.ndarray:
        """Of what is added up over the rows."""
        return self.slope_F[: -1 - NUM_SIZE_FEATURES]

    @property
    def change_ms(self) -> float:
        return float(self.slope_F[-1 - NUM_SIZE_FEATURES])

    @property
    def size_slope(self) -> np.ndarray:
        return self.slope_F[-NUM_SIZE_FEATURES:]

    def size_ratio(self, size_mb_N: np.ndarray) -> np.ndarray:
        """What the size of each network adds to its ratio."""
        return _size_features(size_mb_N) @ self.size_slope

    def std(self, features_NF: np.ndarray) -> np.ndarray:
        """Standard deviation of each network's ratio."""
        centered_NF = features_NF - self.center_F
        return np.sqrt(self.noise + np.einsum("nf,fg,ng->n", centered_NF, self.covariance_FF, centered_NF))


def _row_features(profile: HardwareProfile) -> list[np.ndarray]:
    """What each row adds to a network's features, in groups of shape (R, F).

    The number of blocks, of each kind, at each input, of each kind in each precision; and the time in each precision,
    at each input, of each kind in each precision.
    Kind and input of a block are what its key has before the first space and behind an @.
    """
    latency_ms_R1 = np.array([[row.latency_ms] for row in profile.rows])
    kind = [row.key.partition(" ")[0] for row in profile.rows]
    of_input = _one_hot([row.key.partition("@")[2] for row in profile.rows])
    of_precision = _one_hot([row.precision for row in profile.rows])
    of_both = _one_hot([f"{name} {row.precision}" for name, row in zip(kind, profile.rows, strict=True)])
    counts = [np.ones_like(latency_ms_R1), _one_hot(kind), of_input, of_both]
    return [*counts, *(labels * latency_ms_R1 for labels in (of_precision, of_input, of_both))]


def _size_features(size_mb_N: np.ndarray) -> np.ndarray:
    """Logarithm of the size of networks, its square and its cube: shape (N, `NUM_SIZE_FEATURES`)."""
    log_size_N = np.log(np.maximum(size_mb_N, MIN_SIZE_MB))
    return log_size_N[:, None] ** np.arange(1, 1 + NUM_SIZE_FEATURES)


def _one_hot(labels: Sequence[str]) -> np.ndarray:
    values = sorted(set(labels))
    return np.array([[label == value for value in values] for label in labels], float)


def _fit_correction(features_NF: np.ndarray, ratio_N: np.ndarray, groups: Sequence[int]) -> _Correction:
    """A robust ridge; of fewer than `MIN_NETWORKS_FOR_FEATURES` networks the scale alone."""
    num_features = features_NF.shape[1]
    slope_F, covariance_FF = np.zeros(num_features), np.zeros((num_features, num_features))
    base, noise = float(np.median(ratio_N)), float(np.var(ratio_N, ddof=1))
    if len(ratio_N) >= MIN_NETWORKS_FOR_FEATURES:
        ridge = _robust_ridge(features_NF, ratio_N, groups)
        slope_F, covariance_FF = ridge.coef_, ridge.sigma_
        base, noise = ridge.intercept_, 1 / ridge.alpha_
    lowest, highest = float(ratio_N.min()), float(ratio_N.max())
    return _Correction(
        base=base,
        slope_F=slope_F,
        center_F=features_NF.mean(axis=0),
        covariance_FF=covariance_FF,
        noise=noise,
        bounds=(max(lowest / 2, 2 * lowest - highest), 2 * highest - lowest),
    )


def _robust_ridge(features_NF: np.ndarray, ratio_N: np.ndarray, groups: Sequence[int]) -> GroupedRidge:
    """A ridge with Huber's loss, by iterated reweighting that begins at the median ratio."""
    ridge, predicted_N = GroupedRidge(groups), np.full(len(ratio_N), np.median(ratio_N))
    for _ in range(NUM_REWEIGHTINGS):
        residual_N = np.abs(ratio_N - predicted_N)
        limit = HUBER_SIGMAS * 1.4826 * np.median(residual_N) + 1e-12
        ridge.fit(features_NF, ratio_N, sample_weight=limit / np.maximum(residual_N, limit))
        predicted_N = ridge.predict(features_NF)
    return ridge
