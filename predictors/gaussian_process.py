"""A Gaussian process for a few hundred candidates: three kernel parameters and the noise, whatever the number of genes.

Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", chapters 2 and 5. The kernel is a sum of a
linear part (each gene adds its share) and a smooth one (genes interact). scikit-learn's regressor would compute the
distances again in every step of the tuning; here they are computed once a fit.
"""

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, RegressorMixin

_START = np.log([1.0, 0.5, 1.0, 0.05])  # linear weight, smooth weight, length scale, noise variance
_BOUNDS = np.log([(1e-3, 1e2), (1e-3, 1e2), (0.1, 10.0), (1e-5, 1.0)])


class GaussianProcess(RegressorMixin, BaseEstimator):
    """scikit-learn's `fit` / `predict(return_std)`; parameters by maximum marginal likelihood, deterministic.

    Args:
        log_parameters: logarithms of linear weight, smooth weight, length scale (in units of the mean distance) and
            noise variance, of targets scaled to unit variance; None: tuned on the data.
        max_tuned: parameters are tuned on that many rows at most, evenly spread, which bounds the time of a fit.
    """

    def __init__(self, log_parameters: np.ndarray | None = None, max_tuned: int = 300) -> None:
        self.log_parameters = log_parameters
        self.max_tuned = max_tuned

    def fit(self, X: np.ndarray, y: np.ndarray) -> "GaussianProcess":
        self.center_ = X.mean(axis=0)
        self.X_ = X - self.center_
        self.scale_ = float(np.sqrt((self.X_**2).sum(axis=1).mean())) or 1.0
        self.X_ /= self.scale_
        self.y_mean_, self.y_scale_ = float(y.mean()), float(y.std()) or 1.0
        target = (y - self.y_mean_) / self.y_scale_
        self.log_parameters_ = self.log_parameters if self.log_parameters is not None else self._tune(target)
        kernel = self._kernel(self.X_, self.X_) + np.exp(self.log_parameters_[3]) * np.eye(len(y))
        self.factor_ = cholesky(kernel, lower=True)
        self.weights_ = cho_solve((self.factor_, True), target)
        return self

    def predict(self, X: np.ndarray, return_std: bool = False) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Mean and, if wanted, standard deviation of the noise-free value."""
        scaled = (X - self.center_) / self.scale_
        cross = self._kernel(scaled, self.X_)
        mean = cross @ self.weights_ * self.y_scale_ + self.y_mean_
        if not return_std:
            return mean
        linear, smooth = np.exp(self.log_parameters_[:2])
        prior = linear * (scaled**2).sum(axis=1) + smooth
        variance = prior - (solve_triangular(self.factor_, cross.T, lower=True) ** 2).sum(axis=0)
        return mean, np.sqrt(np.maximum(variance, 1e-12)) * self.y_scale_

    def _kernel(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        linear, smooth, length = np.exp(self.log_parameters_[:3])
        inner = A @ B.T
        return linear * inner + smooth * np.exp(-0.5 * _squared_distances(A, B, inner) / length**2)

    def _tune(self, target: np.ndarray) -> np.ndarray:
        rows = np.unique(np.linspace(0, len(target) - 1, min(len(target), self.max_tuned)).astype(int))
        X, target = self.X_[rows], target[rows]
        inner = X @ X.T
        squared = _squared_distances(X, X, inner)
        result = minimize(
            _negative_log_likelihood,
            _START,
            args=(inner, squared, target),
            jac=True,
            method="L-BFGS-B",
            bounds=_BOUNDS,
            options={"maxiter": 40},
        )
        return result.x


def _squared_distances(A: np.ndarray, B: np.ndarray, inner: np.ndarray) -> np.ndarray:
    return np.maximum((A**2).sum(axis=1)[:, None] + (B**2).sum(axis=1) - 2 * inner, 0.0)


def _negative_log_likelihood(
    log_parameters: np.ndarray, inner: np.ndarray, squared: np.ndarray, target: np.ndarray
) -> tuple[float, np.ndarray]:
    """Value and gradient of the negative log marginal likelihood (Rasmussen and Williams, equations 5.8 and 5.9)."""
    linear, smooth, length, noise = np.exp(log_parameters)
    near = smooth * np.exp(-0.5 * squared / length**2)
    factor = cholesky(linear * inner + near + noise * np.eye(len(target)), lower=True)
    weights = cho_solve((factor, True), target)
    inverse = cho_solve((factor, True), np.eye(len(target)))
    value = 0.5 * target @ weights + np.log(np.diag(factor)).sum()
    outer = inverse - np.outer(weights, weights)
    gradient = 0.5 * np.array(
        [
            linear * (outer * inner).sum(),
            (outer * near).sum(),
            (outer * near * squared).sum() / length**2,
            noise * np.trace(outer),
        ]
    )
    return float(value), gradient
