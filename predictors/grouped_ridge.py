"""Bayesian linear regression with one prior variance a group of features, by maximum posterior likelihood.

MacKay 1992, "Bayesian Interpolation", section 5.1: groups that tell nothing are shrunk away.
scikit-learn has one variance for all features (`BayesianRidge`) or one for each (`ARDRegression`).
"""

from collections.abc import Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, RegressorMixin

_START = np.log(0.1)
"""Logarithm of the share of the target's variance that each group, and the noise, has before anything is known."""
_PRIOR_STD = 1.5
"""Of these logarithms about their start."""
_BOUNDS = (-14.0, 5.0)


class GroupedRidge(RegressorMixin, BaseEstimator):
    """`fit` / `predict` and the attributes of scikit-learn's `BayesianRidge`; deterministic.

    Args:
        groups: number of columns of each group of features, in order.
    """

    def __init__(self, groups: Sequence[int]) -> None:
        self.groups = groups

    def fit(self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None) -> "GroupedRidge":
        """Learn `coef_`, `intercept_`, `sigma_` (covariance of the coefficients) and `alpha_` (1 / noise variance)."""
        weight_N = np.ones(len(y)) if sample_weight is None else sample_weight
        mean_F, mean = np.average(X, axis=0, weights=weight_N), float(np.average(y, weights=weight_N))
        scale = float(np.std(y)) or 1.0
        A, target_N = X - mean_F, (y - mean) / scale
        of_F = np.repeat(np.arange(len(self.groups)), self.groups)
        size_G = np.array([np.sqrt((A[:, of_F == g] ** 2).sum(axis=1).mean()) for g in range(len(self.groups))])
        most_G = np.array([np.abs(mean_F[of_F == g]).max(initial=0.0) for g in range(len(self.groups))])
        unit_F = np.where(size_G > 1e-9 * most_G, 1 / size_G.clip(1e-300), 0.0)[of_F]
        A *= unit_F
        kernels_GNN = np.array([A[:, of_F == g] @ A[:, of_F == g].T for g in range(len(self.groups))])
        start = getattr(self, "log_variances_", np.full(len(self.groups) + 1, _START))
        found = minimize(
            _loss,
            start,
            args=(kernels_GNN, target_N, weight_N),
            jac=True,
            method="L-BFGS-B",
            bounds=[_BOUNDS] * len(start),
        )
        self.log_variances_ = found.x
        variance_F, noise = np.exp(found.x[:-1])[of_F], float(np.exp(found.x[-1]))
        factor = cho_factor((A * variance_F) @ A.T + np.diag(noise / weight_N), lower=True)
        gain_FN = cho_solve(factor, A * variance_F).T
        self.coef_ = gain_FN @ target_N * scale * unit_F
        self.intercept_ = mean - float(mean_F @ self.coef_)
        self.sigma_ = (np.diag(variance_F) - gain_FN @ (A * variance_F)) * scale**2 * np.outer(unit_F, unit_F)
        self.alpha_ = 1 / (noise * scale**2)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The mean, of shape (N,)."""
        return X @ self.coef_ + self.intercept_


def _loss(
    log_variances: np.ndarray, kernels_GNN: np.ndarray, target_N: np.ndarray, weight_N: np.ndarray
) -> tuple[float, np.ndarray]:
    """Negative logarithm of the posterior likelihood of the variances, and its gradient (Rasmussen 2006, 5.9)."""
    variances = np.exp(log_variances)
    kernel = np.tensordot(variances[:-1], kernels_GNN, 1) + np.diag(variances[-1] / weight_N)
    factor = cho_factor(kernel, lower=True)
    dual_N = cho_solve(factor, target_N)
    inner = cho_solve(factor, np.eye(len(target_N))) - np.outer(dual_N, dual_N)
    slopes = np.append(np.einsum("ij,gij->g", inner, kernels_GNN), np.sum(np.diag(inner) / weight_N))
    far = (log_variances - _START) / _PRIOR_STD
    loss = 0.5 * target_N @ dual_N + np.log(np.diag(factor[0])).sum() + 0.5 * far @ far
    return float(loss), 0.5 * variances * slopes + far / _PRIOR_STD
