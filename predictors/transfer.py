"""The latency of networks on a new device from a handful measured there, given what other devices need for them.

Devices agree on much: latency is close to additive over the parts of a network, so a new device is nearly a weighted
sum of known ones and of a few counts of parts. Which deviations to expect, and how large, is learned by leaving one
known device out at a time (empirical Bayes: Carlin and Louis 2000); each gives a kind of device, and the measured
networks tell how much the new one is of each kind.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import cho_solve
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.base import BaseEstimator, RegressorMixin

MIN_NETWORKS = 3
"""Fewer measured networks don't tell a kind of device from another."""

_LOG_START, _LOG_START_NOISE = np.log(0.1), np.log(0.01)
_LOG_BOUNDS, _LOG_BOUNDS_NOISE = np.log((1e-5, 1e1)), np.log((1e-4, 1.0))
"""Variances in units of the mean latency squared; no measurement is better than one percent."""
_LOG_STD = 3.0
"""Of the logarithm of each variance about its start: keeps those that the devices leave open."""

_HUBER_SIGMAS = 1.345
"""Residuals beyond this many standard deviations count less; 95% efficient on normal noise (Huber, 1964)."""
_NUM_REWEIGHTINGS = 5


class LatencyTransfer(RegressorMixin, BaseEstimator):
    """Predicts latency on a new device in milliseconds, as a linear function of the features of a network.

    The first columns of every X are the network's latency on each source device (measured or predicted, ms), the others
    describe the network in numbers that add up over its parts, in groups: number of operations of each kind and the
    like. `pretrain` on many networks once, then `fit` on the few that the new device has measured, then `predict`.

    Args:
        num_sources: number of source devices.
        groups: number of columns of each group of the other features, in order; the weights of a group are expected to
            deviate by a common amount.

    Attributes:
        kinds_: a row a kind of device: logarithms of the variances of each group's weights and of the noise.
        shares_: probability of each kind, given the measured networks.
        coef_, intercept_: of the linear function, in ms.
    """

    def __init__(self, num_sources: int, groups: Sequence[int] = ()) -> None:
        self.num_sources = num_sources
        self.groups = groups

    def pretrain(self, X: np.ndarray, latency_ms_ND: np.ndarray | None = None) -> "LatencyTransfer":
        """Learn from the source devices what to expect of a new one.

        Args:
            X: features of N networks.
            latency_ms_ND: what each source device measured, NaN where it isn't known; by default the columns of X.

        Raises:
            ValueError: the features are not finite, their number isn't what it should be, or a source has no latency.
        """
        X, sources = self._features(X), np.arange(self.num_sources)
        target_ND = X[:, sources] if latency_ms_ND is None else np.asarray(latency_ms_ND, dtype=float)
        if target_ND.shape != (len(X), self.num_sources) or not np.isfinite(target_ND).any(axis=0).all():
            raise ValueError(f"latencies of shape {target_ND.shape} must be {(len(X), self.num_sources)}, none all NaN")
        self.basis_ = _Basis(X, sources, self.groups)
        start = np.append(np.full(self.basis_.num_groups, _LOG_START), _LOG_START_NOISE)
        if self.num_sources == 1:  # nothing to leave out
            self.kinds_ = np.stack([np.append(start[:-1], np.log(noise)) for noise in (1e-2, 1e-3, 1e-4)])
        else:
            self.kinds_ = np.stack(
                [self._kind(X, target_ND[:, source], source, start) for source in range(self.num_sources)]
            )
        return self

    def fit(self, X: np.ndarray, latency_ms: Sequence[float] | np.ndarray) -> "LatencyTransfer":
        """Learn from networks measured on the new device; measurements that fit badly count less.

        Raises:
            ValueError: fewer than three networks, or latencies that are not positive and finite.
        """
        X, measured_ms_N = self._features(X), np.asarray(latency_ms, dtype=float)
        if len(X) < MIN_NETWORKS or measured_ms_N.shape != (len(X),):
            raise ValueError(
                f"{len(X)} networks and latencies of shape {measured_ms_N.shape} can't be fitted; "
                f"give one latency a network, for at least {MIN_NETWORKS}"
            )
        if not (np.isfinite(measured_ms_N).all() and (measured_ms_N > 0).all()):
            raise ValueError("measured latencies must be positive and finite; drop the failed networks first")
        mean_N, basis_NK = self.basis_.split(X)
        importance_N = np.ones(len(X))
        for _ in range(_NUM_REWEIGHTINGS):
            self.scale_ = float(importance_N @ measured_ms_N / (importance_N @ mean_N))
            root_N = np.sqrt(importance_N)
            residual_N = measured_ms_N / self.scale_ - mean_N
            moments = _moments(basis_NK * root_N[:, None], residual_N * root_N)
            self.posteriors_ = [_posterior(kind, self.basis_.group_K, moments) for kind in self.kinds_]
            self.shares_ = softmax([posterior.log_evidence for posterior in self.posteriors_])
            weights_K = self.shares_ @ np.stack([posterior.mean_K for posterior in self.posteriors_])
            limit = _HUBER_SIGMAS * np.sqrt(self.shares_ @ np.exp(self.kinds_[:, -1]))
            importance_N = limit / np.maximum(np.abs(residual_N - basis_NK @ weights_K), limit)
        self.coef_, self.intercept_ = self.basis_.linear(weights_K, self.scale_)
        return self

    def predict(self, X: np.ndarray, return_std: bool = False) -> Any:
        """Latency in ms, shape (N,); if wanted also the standard deviation of what would be measured."""
        X = self._features(X)
        latency_ms_N = X @ self.coef_ + self.intercept_
        if not return_std:
            return latency_ms_N
        mean_N, basis_NK = self.basis_.split(X)
        second_moment_N = np.zeros(len(X))
        for share, posterior, kind in zip(self.shares_, self.posteriors_, self.kinds_, strict=True):
            spread_N = ((basis_NK @ posterior.covariance_KK) * basis_NK).sum(axis=1) + np.exp(kind[-1])
            second_moment_N += share * (spread_N + (mean_N + basis_NK @ posterior.mean_K) ** 2)
        variance_N = second_moment_N - (latency_ms_N / self.scale_) ** 2
        return latency_ms_N, self.scale_ * np.sqrt(np.maximum(variance_N, 0.0))

    def sources_mean(self, X: np.ndarray) -> np.ndarray:
        """What the mean of the sources says of X in ms, scaled to the new device and nothing else learned."""
        return self.scale_ * self.basis_.split(self._features(X))[0]

    def select(self, X: np.ndarray, num: int) -> np.ndarray:
        """Rows of X, `num` networks to measure on a new device: each is the least certain one, given those before.

        Greedy D-optimal design under the mean of the kinds; no latency of the new device is looked at.
        """
        X = self._features(X)
        if not 1 <= num <= len(X):
            raise ValueError(f"{num} networks can't be selected from {len(X)}; ask for 1 to {len(X)}")
        _, basis_NK = self.basis_.split(X)
        log_variance = self.kinds_.mean(axis=0)
        root_NK = basis_NK * np.exp(log_variance[self.basis_.group_K] / 2)
        chosen: list[int] = []
        covariance_KK = np.eye(root_NK.shape[1])
        for _ in range(num):
            spread_N = ((root_NK @ covariance_KK) * root_NK).sum(axis=1)
            spread_N[chosen] = -np.inf
            chosen.append(int(spread_N.argmax()))
            gain_K = covariance_KK @ root_NK[chosen[-1]]
            covariance_KK -= np.outer(gain_K, gain_K) / (spread_N[chosen[-1]] + np.exp(log_variance[-1]))
        return np.array(chosen)

    def _kind(self, X: np.ndarray, target_N: np.ndarray, left_out: int, start: np.ndarray) -> np.ndarray:
        """The variances under which the other sources and the features would have expected this source."""
        basis = _Basis(X, np.delete(np.arange(self.num_sources), left_out), self.groups)
        known_N = np.isfinite(target_N)
        mean_N, basis_NK = basis.split(X[known_N])
        residual_N = target_N[known_N] * (mean_N.mean() / target_N[known_N].mean()) - mean_N
        moments = _moments(basis_NK, residual_N)

        def loss(log_variances: np.ndarray) -> float:
            offset = (log_variances - start) / _LOG_STD
            return 0.5 * float(offset @ offset) - _posterior(log_variances, basis.group_K, moments).log_evidence

        bounds = [_LOG_BOUNDS] * basis.num_groups + [_LOG_BOUNDS_NOISE]
        return minimize(loss, start, method="L-BFGS-B", bounds=bounds).x

    def _features(self, X: np.ndarray) -> np.ndarray:
        X = np.asarray(X, dtype=float)
        num_columns = self.num_sources + sum(self.groups)
        if X.ndim != 2 or X.shape[1] != num_columns:
            raise ValueError(f"features of shape {X.shape} must have {num_columns} columns: sources, then groups")
        if not np.isfinite(X).all():
            raise ValueError("features must be finite; drop the networks that a source can't tell the latency of")
        return X


class _Basis:
    """Standardised directions in which a new device may deviate from the mean of the sources, all linear in X.

    The mean itself (its scale), each source's distance from the mean, each group of the other features, a constant. All
    but the mean and the constant are centred, and each group has a total variance of one over the networks of X.
    """

    def __init__(self, X: np.ndarray, sources: np.ndarray, groups: Sequence[int]) -> None:
        num_columns, num_sources = X.shape[1], len(sources)
        relative = np.zeros((num_columns, num_sources))
        relative[sources, np.arange(num_sources)] = 1 / np.maximum(X[:, sources].mean(axis=0), 1e-12)
        self._mean_F = relative.mean(axis=1)
        parts = [self._mean_F[:, None], relative - self._mean_F[:, None]]
        start = num_columns - sum(groups)
        for size in groups:
            parts.append(np.eye(num_columns)[:, start : start + size])
            start += size
        offsets = [np.zeros(1)]
        for index, part in enumerate(parts[1:], start=1):
            values = X @ part
            spread = float(np.sqrt(values.var(axis=0).sum())) or 1.0
            parts[index] = part / spread
            offsets.append(-values.mean(axis=0) / spread)
        self._linear_FK = np.column_stack([*parts, np.zeros(num_columns)])
        self._offset_K = np.concatenate([*offsets, np.ones(1)])
        sizes = [part.shape[1] for part in parts] + [1]
        self.num_groups = len(sizes)
        self.group_K = np.repeat(np.arange(self.num_groups), sizes)

    def split(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the mean of the sources says (N,), in units of its mean, and the directions (N x K)."""
        return X @ self._mean_F, X @ self._linear_FK + self._offset_K

    def linear(self, weights_K: np.ndarray, scale: float) -> tuple[np.ndarray, float]:
        """Coefficients and intercept of scale x (mean + directions @ weights) as a function of X."""
        return scale * (self._mean_F + self._linear_FK @ weights_K), scale * float(self._offset_K @ weights_K)


class _Moments(NamedTuple):
    """All that a linear model needs of its rows."""

    num_rows: int
    inner_KK: np.ndarray
    cross_K: np.ndarray
    square: float


class _Posterior(NamedTuple):
    mean_K: np.ndarray
    covariance_KK: np.ndarray
    log_evidence: float


def _moments(basis_NK: np.ndarray, target_N: np.ndarray) -> _Moments:
    return _Moments(len(target_N), basis_NK.T @ basis_NK, basis_NK.T @ target_N, float(target_N @ target_N))


def _posterior(kind: np.ndarray, group_K: np.ndarray, moments: _Moments) -> _Posterior:
    """Of the weights of a Bayesian linear regression (Bishop 2006, section 3.5)."""
    root_K, noise = np.exp(kind[group_K] / 2), float(np.exp(kind[-1]))
    precision = moments.inner_KK * np.outer(root_K, root_K) / noise + np.eye(len(root_K))
    factor = np.linalg.cholesky(precision)
    covariance_KK = cho_solve((factor, True), np.eye(len(root_K))) * np.outer(root_K, root_K)
    mean_K = covariance_KK @ moments.cross_K / noise
    log_evidence = -0.5 * (moments.square - moments.cross_K @ mean_K) / noise - np.log(np.diag(factor)).sum()
    return _Posterior(mean_K, covariance_KK, float(log_evidence - 0.5 * moments.num_rows * np.log(noise)))
