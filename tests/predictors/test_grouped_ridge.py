import numpy as np
import pytest
from scipy.optimize import check_grad
from sklearn.linear_model import BayesianRidge

from predictors.grouped_ridge import GroupedRidge, _loss


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_gradient_is_that_of_the_loss(rng: np.random.Generator) -> None:
    A = rng.normal(size=(2, 12, 3))
    kernels, target, weight = A @ A.transpose(0, 2, 1), rng.normal(size=12), rng.uniform(0.2, 1, 12)
    error = check_grad(
        lambda v: _loss(v, kernels, target, weight)[0],
        lambda v: _loss(v, kernels, target, weight)[1],
        np.array([-1.0, 0.5, -2.0]),
    )
    assert error < 1e-5


def test_a_single_group_of_many_samples_is_a_bayesian_ridge(rng: np.random.Generator) -> None:
    X = rng.normal(size=(400, 4)) + 5
    y = X @ [1.0, -2.0, 0.5, 0.0] + 3 + 0.1 * rng.normal(size=400)
    ours, theirs = GroupedRidge([4]).fit(X, y), BayesianRidge().fit(X, y)
    assert ours.coef_ == pytest.approx(theirs.coef_, abs=1e-3)
    assert ours.predict(X) == pytest.approx(theirs.predict(X), abs=1e-2)
    assert 1 / ours.alpha_ == pytest.approx(0.01, rel=0.2)
    assert np.diag(ours.sigma_) == pytest.approx(np.diag(theirs.sigma_), rel=0.2)


def test_a_group_that_tells_nothing_is_shrunk_away(rng: np.random.Generator) -> None:
    told, noise = rng.normal(size=(40, 2)), rng.normal(size=(40, 30))
    y = told @ [1.0, -1.0] + 0.05 * rng.normal(size=40)
    grouped = GroupedRidge([2, 30]).fit(np.hstack([told, noise]), y)
    single = GroupedRidge([32]).fit(np.hstack([told, noise]), y)
    assert np.linalg.norm(grouped.coef_[2:]) < 0.3 * np.linalg.norm(single.coef_[2:])
    assert grouped.coef_[:2] == pytest.approx([1.0, -1.0], abs=0.05)


def test_units_of_features_and_of_the_target_change_nothing(rng: np.random.Generator) -> None:
    X, y = rng.normal(size=(30, 3)), rng.normal(size=30)
    plain, scaled = GroupedRidge([1, 2]).fit(X, y), GroupedRidge([1, 2]).fit(X * [7, 0.1, 0.1], 1000 * y)
    assert scaled.predict(X * [7, 0.1, 0.1]) == pytest.approx(1000 * plain.predict(X), rel=1e-4)
    assert scaled.alpha_ == pytest.approx(plain.alpha_ / 1000**2, rel=1e-3)


def test_a_constant_feature_has_no_coefficient_and_no_uncertainty(rng: np.random.Generator) -> None:
    X = np.column_stack([rng.normal(size=20), np.full(20, 0.1)])
    ridge = GroupedRidge([1, 1]).fit(X, X[:, 0] + 2)
    assert ridge.coef_[1] == 0
    assert ridge.sigma_[1, 1] == 0
    assert ridge.predict(X) == pytest.approx(X[:, 0] + 2, abs=1e-2)


def test_a_sample_of_little_weight_hardly_counts(rng: np.random.Generator) -> None:
    X = rng.normal(size=(30, 1))
    y = 2 * X[:, 0]
    y[0] += 100
    weight = np.ones(30)
    weight[0] = 1e-6
    assert GroupedRidge([1]).fit(X, y, sample_weight=weight).coef_ == pytest.approx([2.0], abs=1e-2)
