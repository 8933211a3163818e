"""Predict what is measured candidate by candidate, such as accuracy, from features of the candidate."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import BayesianRidge
from sklearn.model_selection import KFold

from predictors.gaussian_process import GaussianProcess
from predictors.metrics import prediction_metrics
from search_spaces.errors import unknown_name

FAMILIES: Mapping[str, Callable[[], Any]] = {
    "bayesian-ridge": BayesianRidge,
    "gaussian-process": GaussianProcess,
}
"""Estimators with `fit(X, y)` and `predict(X, return_std)`, all deterministic."""


class AccuracyPredictor(RegressorMixin, BaseEstimator):
    """Fits the family with the lowest cross-validated squared error.

    Args:
        families: names in `FAMILIES` to choose from; a single one is taken without cross-validation.
        num_folds: folds of the cross-validation.
        max_validated: the choice looks at that many rows at most, evenly spread, which bounds its time.

    Attributes:
        family_: name of the chosen family.
        errors_: family -> root mean squared error on rows it did not see; empty for a single family.
    """

    def __init__(self, families: Sequence[str] = tuple(FAMILIES), num_folds: int = 5, max_validated: int = 200) -> None:
        self.families = families
        self.num_folds = num_folds
        self.max_validated = max_validated

    def fit(self, X: np.ndarray, y: np.ndarray) -> "AccuracyPredictor":
        """Learn from features X (N x F) and values y (N); N must be 2 or more."""
        self.errors_: dict[str, float] = {}
        if len(self.families) > 1:
            rows = np.unique(np.linspace(0, len(y) - 1, min(len(y), self.max_validated)).astype(int))
            for family in self.families:
                predicted = cross_validated_predictions(X[rows], y[rows], family=family, num_folds=self.num_folds)
                self.errors_[family] = float(np.sqrt(((predicted - y[rows]) ** 2).mean()))
        self.family_ = min(self.errors_, key=self.errors_.__getitem__) if self.errors_ else self.families[0]
        self.model_ = _estimator(self.family_).fit(X, y)
        return self

    def predict(self, X: np.ndarray, return_std: bool = False) -> Any:
        """N values, or values and standard deviations."""
        return self.model_.predict(X, return_std=return_std)


def cross_validated_metrics(
    X: np.ndarray, y: np.ndarray, *, families: Sequence[str] = tuple(FAMILIES), num_folds: int = 5
) -> dict[str, dict[str, float]]:
    """Family -> `prediction_metrics` (rank correlations and errors) on rows it did not see; N must be 3 or more."""
    return {
        family: prediction_metrics(y, cross_validated_predictions(X, y, family=family, num_folds=num_folds))
        for family in families
    }


def cross_validated_predictions(X: np.ndarray, y: np.ndarray, *, family: str, num_folds: int = 5) -> np.ndarray:
    """A prediction for each row by a model of `family` that did not see it."""
    predicted = np.empty(len(y))
    for train, test in KFold(min(num_folds, len(y)), shuffle=True, random_state=0).split(X):
        predicted[test] = _estimator(family).fit(X[train], y[train]).predict(X[test])
    return predicted


def _estimator(family: str) -> Any:
    if family not in FAMILIES:
        raise ValueError(unknown_name("predictor family", family, FAMILIES))
    return FAMILIES[family]()
