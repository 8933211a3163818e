"""Predict what is measured candidate by candidate, such as error or latency, from features of the candidate.

Low targets are the good ones: they are where errors count.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import BayesianRidge
from sklearn.model_selection import KFold

from predictors.gaussian_process import Compression, GaussianProcess
from predictors.metrics import prediction_metrics
from search_spaces.errors import unknown_name

Tied = Sequence[Sequence[int]]


class Ridge(BayesianRidge):
    """scikit-learn's Bayesian ridge regression, with what each row would be given by the others."""

    def fit(self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None) -> "Ridge":
        super().fit(X, y, sample_weight)
        centered = X - X.mean(axis=0)
        covariance = centered.T @ centered + self.lambda_ / self.alpha_ * np.eye(X.shape[1])
        leverage = 1 / len(y) + (centered * np.linalg.solve(covariance, centered.T).T).sum(axis=1)
        residual = (y - self.predict(X)) / np.maximum(1 - leverage, 1e-6)
        self.left_out_ = y - residual
        return self

    def leave_one_out(self) -> np.ndarray:
        """For each row that was learned from, the mean that the others would have given, regularisation kept."""
        return self.left_out_


FAMILIES: Mapping[str, Callable[[Sequence[int], Tied], Any]] = {
    "bayesian-ridge": lambda groups, tied: Ridge(),
    "gaussian-process": lambda groups, tied: GaussianProcess(groups),
    "compressed-gaussian-process": lambda groups, tied: GaussianProcess(groups, compress=True),
    "relevance-gaussian-process": lambda groups, tied: GaussianProcess(groups, compress=True, tied=tied),
}
"""From the sizes of the groups of features and the sets that are tied (see `GaussianProcess`) to an estimator with
`fit(X, y)`, `predict(X, return_std)` and `leave_one_out()`; all deterministic."""


class AccuracyPredictor(RegressorMixin, BaseEstimator):
    """Fits every family and keeps the one with the lowest leave-one-out absolute error.

    Args:
        families: names in `FAMILIES` to choose from.
        groups: number of columns of each group of features, in order; empty: all columns are one group.
        tied: sets of columns that are tuned a relevance each.

    Attributes:
        family_: name of the chosen family.
        errors_: family -> mean absolute error on rows it did not see (its few parameters did), in `Compression` units.
    """

    def __init__(self, families: Sequence[str] = tuple(FAMILIES), groups: Sequence[int] = (), tied: Tied = ()) -> None:
        self.families = families
        self.groups = groups
        self.tied = tied

    def fit(self, X: np.ndarray, y: np.ndarray) -> "AccuracyPredictor":
        """Learn from features X (N x F) and values y (N); N must be 2 or more."""
        models = {family: _estimator(family, self.groups, self.tied).fit(X, y) for family in self.families}
        short = Compression(y).forward
        self.errors_ = {
            family: float(np.abs(short(model.leave_one_out()) - short(y)).mean()) for family, model in models.items()
        }
        self.family_ = min(self.errors_, key=self.errors_.__getitem__)
        self.model_ = models[self.family_]
        return self

    def leave_one_out(self) -> np.ndarray:
        """For each row that was learned from, the value that the others would have given."""
        return self.model_.leave_one_out()

    def predict(self, X: np.ndarray, return_std: bool = False) -> Any:
        """N values, or values and standard deviations."""
        return self.model_.predict(X, return_std=return_std)


def cross_validated_metrics(
    X: np.ndarray,
    y: np.ndarray,
    *,
    families: Sequence[str] = tuple(FAMILIES),
    groups: Sequence[int] = (),
    num_folds: int = 5,
) -> dict[str, dict[str, float]]:
    """Family -> `prediction_metrics` (rank correlations and errors) on rows it did not see; N must be 3 or more."""
    return {
        family: prediction_metrics(
            y, cross_validated_predictions(X, y, family=family, groups=groups, num_folds=num_folds)
        )
        for family in families
    }


def cross_validated_predictions(
    X: np.ndarray, y: np.ndarray, *, family: str, groups: Sequence[int] = (), num_folds: int = 5
) -> np.ndarray:
    """A prediction for each row by a model of `family` that did not see it."""
    predicted = np.empty(len(y))
    for train, test in KFold(min(num_folds, len(y)), shuffle=True, random_state=0).split(X):
        predicted[test] = _estimator(family, groups).fit(X[train], y[train]).predict(X[test])
    return predicted


def _estimator(family: str, groups: Sequence[int], tied: Tied = ()) -> Any:
    if family not in FAMILIES:
        raise ValueError(unknown_name("predictor family", family, FAMILIES))
    return FAMILIES[family](groups, tied)
