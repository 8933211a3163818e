"""A Gaussian process for some hundred candidates: few kernel parameters, whatever the number of genes.

Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", chapters 2 and 5. The kernel is a sum over
groups of features, each with a linear part (every feature adds its share) and a smooth one (features interact).
scikit-learn's regressor would compute the distances again in every step of the tuning; here that is done once a fit.
"""

from collections.abc import Sequence

import numpy as np
from scipy.linalg import cho_solve, cholesky, lapack, solve_triangular
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, RegressorMixin

_START = np.log([0.4, 0.4, 1.0])  # of each group: linear weight, smooth weight, length scale
_BOUNDS = np.log([(1e-4, 1e2), (1e-4, 1e2), (0.1, 10.0)])
_START_NOISE, _BOUNDS_NOISE = np.log(0.05), np.log((1e-5, 1.0))
_PRIOR_STD = 3.0
"""Of the logarithm of each parameter about its start: keeps those that the data leave open."""
_RELEVANCE_STD, _BOUNDS_RELEVANCE = 0.5, (-6.0, 6.0)
"""The same of the logarithms of relevances, about 0."""
_TAIL = 0.6
"""Units beyond the median, in those of `Compression`, at which the tail of high values has half its slope."""
_NUM_AT_ONCE = 1024
"""Rows predicted at a time: their kernel with some hundred others stays in the processor's cache."""


class GaussianProcess(RegressorMixin, BaseEstimator):
    """scikit-learn's `fit` / `predict(return_std)`; parameters by maximum posterior likelihood, deterministic.

    Args:
        groups: number of columns of each group of features, in order; empty: all columns are one group.
        tied: sets of columns that are tuned a relevance each; a column is multiplied by the square root of the product
            of those of its sets (automatic relevance determination, in the book's section 5.1).
        compress: learn targets whose tail of high values is shortened (see `Compression`).
        log_parameters: logarithms of linear weight, smooth weight, length scale (in units of the root mean square
            distance from the mean) of each group, then of the noise variance, of targets scaled to unit variance; None:
            tuned on the data.
        max_tuned: parameters are tuned on that many rows at most, evenly spread, which bounds the time of a fit.
    """

    def __init__(
        self,
        groups: Sequence[int] = (),
        compress: bool = False,
        tied: Sequence[Sequence[int]] = (),
        log_parameters: np.ndarray | None = None,
        max_tuned: int = 300,
    ) -> None:
        self.groups = groups
        self.compress = compress
        self.tied = tied
        self.log_parameters = log_parameters
        self.max_tuned = max_tuned

    def fit(self, X: np.ndarray, y: np.ndarray) -> "GaussianProcess":
        self.compression_ = Compression(y) if self.compress else None
        short = y if self.compression_ is None else self.compression_.forward(y)
        self.y_mean_, self.y_scale_ = float(short.mean()), float(short.std()) or 1.0
        ends = np.cumsum(self.groups or [X.shape[1]])
        self.slices_ = [slice(end - size, end) for end, size in zip(ends, self.groups or [X.shape[1]], strict=True)]
        self.center_ = X.mean(axis=0)
        self.spread_ = np.ones(X.shape[1])
        for part in self.slices_:
            self.spread_[part] = float(np.sqrt(((X - self.center_)[:, part] ** 2).sum(axis=1).mean())) or 1.0
        self.X_ = (X - self.center_) / self.spread_
        target = (short - self.y_mean_) / self.y_scale_
        given = self.log_parameters
        self.log_parameters_, relevance = self._tune(target) if given is None else (given, np.ones(X.shape[1]))
        self.spread_ /= np.sqrt(relevance)
        self.X_ *= np.sqrt(relevance)
        kernel = self._kernel(self.X_, self.X_) + np.exp(self.log_parameters_[-1]) * np.eye(len(y))
        self.factor_ = cholesky(kernel, lower=True)
        self.weights_ = cho_solve((self.factor_, True), target)
        self.target_ = target
        return self

    def leave_one_out(self) -> np.ndarray:
        """For each row that was learned from, the mean that the others would have given (equation 5.12)."""
        inverse = _inverse(self.factor_)
        return self._back(self.target_ - self.weights_ / np.diag(inverse))

    def predict(self, X: np.ndarray, return_std: bool = False) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Mean (median, with `compress`) and, if wanted, standard deviation of the noise-free value."""
        parts = [self._predict(X[i : i + _NUM_AT_ONCE], return_std) for i in range(0, len(X), _NUM_AT_ONCE)]
        mean = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0)
        if not return_std:
            return self._back(mean)
        std = np.concatenate([part[1] for part in parts]) if parts else np.zeros(0)
        return self._back(mean), (self._back(mean + std) - self._back(mean - std)) / 2

    def _predict(self, X: np.ndarray, return_std: bool) -> tuple[np.ndarray, np.ndarray]:
        scaled = (X - self.center_) / self.spread_
        mean = self._mean(scaled)
        if not return_std:
            return mean, mean
        cross = self._kernel(scaled, self.X_)
        prior = np.zeros(len(X))
        for (linear, smooth, _), part in zip(self._weights(), self.slices_, strict=True):
            prior += linear * (scaled[:, part] ** 2).sum(axis=1) + smooth
        variance = prior - (solve_triangular(self.factor_, cross.T, lower=True) ** 2).sum(axis=0)
        return mean, np.sqrt(np.maximum(variance, 1e-12))

    def _mean(self, scaled: np.ndarray) -> np.ndarray:
        """`_kernel(scaled, X_) @ weights_` in few passes: one product and one exponential a group.

        The linear part needs no kernel, and the exponent of the smooth one is an inner product of extended rows.
        """
        mean = np.zeros(len(scaled))
        for (linear, smooth, length), part in zip(self._weights(), self.slices_, strict=True):
            A, B = scaled[:, part], self.X_[:, part]
            mean += A @ (linear * (B.T @ self.weights_))
            near = A @ (B.T / length**2)
            near -= (A**2).sum(axis=1)[:, None] / (2 * length**2)
            near -= (B**2).sum(axis=1) / (2 * length**2)
            np.exp(np.minimum(near, 0.0, out=near), out=near)
            mean += near @ (smooth * self.weights_)
        return mean

    def _back(self, z: np.ndarray) -> np.ndarray:
        short = z * self.y_scale_ + self.y_mean_
        return short if self.compression_ is None else self.compression_.back(short)

    def _weights(self) -> np.ndarray:
        return np.exp(self.log_parameters_[:-1]).reshape(-1, 3)

    def _kernel(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        kernel = np.zeros((len(A), len(B)))
        for (linear, smooth, length), part in zip(self._weights(), self.slices_, strict=True):
            inner = A[:, part] @ B[:, part].T
            near = _squared_distances(A[:, part], B[:, part], inner)
            near *= -0.5 / length**2
            np.exp(near, out=near)
            near *= smooth
            inner *= linear
            kernel += near
            kernel += inner
        return kernel

    def _tune(self, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logarithms of the parameters, and the relevance of each column; both of the highest posterior density."""
        rows = np.unique(np.linspace(0, len(target) - 1, min(len(target), self.max_tuned)).astype(int))
        X, num_tied = self.X_[rows], len(self.tied)
        members = np.zeros((num_tied, X.shape[1]))
        for number, columns in enumerate(self.tied):
            members[number, list(columns)] = 1.0
        center = np.append(np.tile(_START, len(self.slices_)), _START_NOISE)
        as_they_are = self._products(X)

        def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
            relevances, parameters = values[:num_tied], values[num_tied:]
            scaled = X * np.exp(0.5 * relevances @ members)
            products = self._products(scaled) if num_tied else as_they_are
            value, gradient, outer = _negative_log_likelihood(parameters, products, target[rows])
            slopes = members @ self._column_slopes(scaled, parameters, products, outer) if num_tied else relevances
            offset, away = (parameters - center) / _PRIOR_STD, relevances / _RELEVANCE_STD
            value += 0.5 * float(offset @ offset + away @ away)
            return value, np.concatenate([slopes + away / _RELEVANCE_STD, gradient + offset / _PRIOR_STD])

        bounds = [*[_BOUNDS_RELEVANCE] * num_tied, *np.tile(_BOUNDS, (len(self.slices_), 1)), _BOUNDS_NOISE]
        start = np.append(np.zeros(num_tied), center)
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 40}).x
        return found[num_tied:], np.exp(found[:num_tied] @ members)

    def _products(self, X: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Inner products and squared distances (both N x N) of each group."""
        inners = [X[:, part] @ X[:, part].T for part in self.slices_]
        return [
            (inner, _squared_distances(X[:, part], X[:, part], inner))
            for part, inner in zip(self.slices_, inners, strict=True)
        ]

    def _column_slopes(
        self,
        X: np.ndarray,
        log_parameters: np.ndarray,
        products: list[tuple[np.ndarray, np.ndarray]],
        outer: np.ndarray,
    ) -> np.ndarray:
        """Slope of the negative log likelihood along the logarithm of each column's relevance."""
        slopes = np.empty(X.shape[1])
        triples = np.exp(log_parameters[:-1]).reshape(-1, 3)
        for (linear, smooth, length), part, (_, squared) in zip(triples, self.slices_, products, strict=True):
            pull = outer * (smooth / (4 * length**2) * np.exp(squared * (-0.5 / length**2)))
            both = 0.5 * linear * outer + 2 * pull
            slopes[part] = ((both @ X[:, part]) * X[:, part]).sum(axis=0) - 2 * pull.sum(axis=1) @ X[:, part] ** 2
        return slopes


class Compression:
    """Shortens the tail of high values, those beyond the median, to its logarithm; low values stay as they are.

    Where low is good, what the bad ones of a search are like matters little, and a few of them would drown the rest.
    """

    def __init__(self, y: np.ndarray) -> None:
        tenth, self._median = np.quantile(y, [0.1, 0.5])
        self._unit = float(self._median - tenth) or float(y.std()) or 1.0

    def forward(self, y: np.ndarray) -> np.ndarray:
        """From targets to units of the distance between median and best tenth."""
        units = (y - self._median) / self._unit
        return np.where(units > 0, _TAIL * np.log1p(np.maximum(units, 0) / _TAIL), units)

    def back(self, z: np.ndarray) -> np.ndarray:
        """The inverse of `forward`, which stops at exp(10) units."""
        return np.where(z > 0, _TAIL * np.expm1(np.clip(z / _TAIL, 0, 10)), z) * self._unit + self._median


def _squared_distances(A: np.ndarray, B: np.ndarray, inner: np.ndarray) -> np.ndarray:
    distances = inner * -2.0
    distances += (A**2).sum(axis=1)[:, None]
    distances += (B**2).sum(axis=1)
    return np.maximum(distances, 0.0, out=distances)


def _inverse(factor: np.ndarray) -> np.ndarray:
    """Of the matrix whose lower Cholesky factor is given."""
    lower, _ = lapack.dpotri(factor, lower=1)
    return np.tril(lower) + np.tril(lower, -1).T


def _negative_log_likelihood(
    log_parameters: np.ndarray, products: list[tuple[np.ndarray, np.ndarray]], target: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Its value, its gradient (Rasmussen and Williams, equations 5.8 and 5.9), and twice its slope along the kernel.

    `products` holds inner products and squared distances (both N x N) of each group.
    """
    parameters = np.exp(log_parameters)
    kernel = parameters[-1] * np.eye(len(target))
    parts = []
    for (linear, smooth, length), (inner, squared) in zip(parameters[:-1].reshape(-1, 3), products, strict=True):
        near = smooth * np.exp(squared * (-0.5 / length**2))
        kernel += linear * inner + near
        parts.append((linear * inner, near, near * squared / length**2))
    factor = cholesky(kernel, lower=True)
    weights = cho_solve((factor, True), target)
    outer = _inverse(factor) - np.outer(weights, weights)
    value = 0.5 * target @ weights + np.log(np.diag(factor)).sum()
    slopes = [np.vdot(outer, part) for triple in parts for part in triple]
    return float(value), 0.5 * np.array([*slopes, parameters[-1] * np.trace(outer)]), outer
