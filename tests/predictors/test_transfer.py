"""Transfer of latency, on simulated devices whose true costs are known."""

import re

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.base import clone

from predictors.transfer import LatencyTransfer

NUM_OPERATIONS = 4


class Devices:
    """Devices that add up the costs of operations, each with its own costs; the last one is new."""

    def __init__(self, *, num: int = 6, noise: float = 0.02, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.counts = self.rng.integers(0, 6, size=(300, NUM_OPERATIONS)).astype(float)
        self.costs = self.rng.uniform(0.2, 3.0, size=(num, NUM_OPERATIONS)) * self.rng.uniform(0.1, 20, size=(num, 1))
        self.overhead = 2 * self.costs.mean(axis=1)
        self.true_ms = self.counts @ self.costs.T + self.overhead
        self.measured_ms = self.true_ms * (1 + noise * self.rng.standard_normal(self.true_ms.shape))
        self.X = np.column_stack([self.true_ms[:, :-1], self.counts])

    def model(self) -> LatencyTransfer:
        return LatencyTransfer(self.X.shape[1] - NUM_OPERATIONS, (NUM_OPERATIONS,)).pretrain(
            self.X, self.measured_ms[:, :-1]
        )


def test_ten_networks_rank_a_device_that_no_source_resembles() -> None:
    for seed in range(5):
        devices = Devices(seed=seed)
        chosen = devices.rng.choice(300, 10, replace=False)
        predicted = devices.model().fit(devices.X[chosen], devices.measured_ms[chosen, -1]).predict(devices.X)
        assert spearmanr(predicted, devices.true_ms[:, -1]).statistic > 0.97
        assert np.abs(predicted / devices.true_ms[:, -1] - 1).mean() < 0.08


def test_sources_tell_more_than_the_networks_alone() -> None:
    errors, alone = [], []
    for seed in range(10):
        devices = Devices(seed=seed, noise=0.05)
        devices.true_ms[:, -1] = devices.true_ms[:, :2] @ [0.5, 1.5]  # a mixture of two sources
        measured = devices.true_ms[:, -1] * (1 + 0.05 * devices.rng.standard_normal(300))
        predicted = devices.model().fit(devices.X[:6], measured[:6]).predict(devices.X)
        errors.append(np.abs(predicted / devices.true_ms[:, -1] - 1).mean())
        design = np.column_stack([np.ones(300), devices.counts])
        fitted = design @ np.linalg.lstsq(design[:6], measured[:6], rcond=None)[0]
        alone.append(np.abs(fitted / devices.true_ms[:, -1] - 1).mean())
    assert np.mean(errors) < 0.7 * np.mean(alone)


def test_prediction_is_the_linear_function_that_is_told() -> None:
    devices = Devices()
    model = devices.model().fit(devices.X[:10], devices.measured_ms[:10, -1])
    np.testing.assert_allclose(model.predict(devices.X), devices.X @ model.coef_ + model.intercept_)


def test_posterior_equals_conditioning_a_normal_distribution() -> None:
    devices = Devices()
    model, X, y = devices.model(), devices.X[:8], devices.measured_ms[:8, -1]
    model.kinds_ = model.kinds_[:1]
    model.fit(X, y)
    mean_N, basis_NK = model.basis_.split(devices.X)
    prior_NN = (basis_NK * np.exp(model.kinds_[0][model.basis_.group_K])) @ basis_NK.T
    noise = np.exp(model.kinds_[0][-1])
    residual = y / model.scale_ - mean_N[:8]
    if (np.abs(residual - (model.predict(X) / model.scale_ - mean_N[:8])) > 1.345 * np.sqrt(noise)).any():
        pytest.fail("a measurement was reweighted, which this comparison leaves out; choose another seed")
    gain = np.linalg.solve(prior_NN[:8, :8] + noise * np.eye(8), prior_NN[:8]).T
    expected, std = model.predict(devices.X, return_std=True)
    np.testing.assert_allclose(expected, model.scale_ * (mean_N + gain @ residual), rtol=1e-6)
    variance = np.diag(prior_NN - gain @ prior_NN[:8]) + noise
    np.testing.assert_allclose(std, model.scale_ * np.sqrt(variance), rtol=1e-4)


def test_standard_deviation_is_that_of_the_errors() -> None:
    shares = []
    for seed in range(10):
        devices = Devices(seed=seed)
        predicted, std = (
            devices.model().fit(devices.X[:10], devices.measured_ms[:10, -1]).predict(devices.X, return_std=True)
        )
        shares.append((np.abs(predicted - devices.measured_ms[:, -1]) < 2 * std).mean())
    assert np.mean(shares) > 0.8


def test_one_wild_measurement_does_little_harm() -> None:
    devices = Devices()
    measured = devices.measured_ms[:12, -1].copy()
    measured[3] *= 5
    predicted = devices.model().fit(devices.X[:12], measured).predict(devices.X)
    assert np.median(np.abs(predicted / devices.true_ms[:, -1] - 1)) < 0.15


@pytest.mark.parametrize(("factor", "source"), [(1e-3, 1e3), (50.0, 1.0)])
def test_units_do_not_matter(factor: float, source: float) -> None:
    devices = Devices(num=3)
    X = devices.X.copy()
    plain = devices.model().fit(X[:10], devices.measured_ms[:10, -1]).predict(X)
    X[:, 0] *= source
    measured = devices.measured_ms[:, :2] * [source, 1.0]
    model = LatencyTransfer(2, (NUM_OPERATIONS,)).pretrain(X, measured)
    scaled = model.fit(X[:10], factor * devices.measured_ms[:10, -1]).predict(X)
    np.testing.assert_allclose(scaled, factor * plain, rtol=1e-2)  # variances are tuned to a tolerance


def test_one_source_is_enough() -> None:
    devices = Devices(num=2)
    model = LatencyTransfer(1, (NUM_OPERATIONS,)).pretrain(devices.X)
    predicted = model.fit(devices.X[:10], devices.measured_ms[:10, -1]).predict(devices.X)
    assert spearmanr(predicted, devices.true_ms[:, -1]).statistic > 0.95


def test_selected_networks_are_distinct_and_leave_less_uncertain_than_random_ones() -> None:
    devices = Devices()
    model = devices.model()
    chosen = model.select(devices.X, 8)
    assert len(set(chosen.tolist())) == 8

    def mean_std(rows: np.ndarray) -> float:
        return float(
            model.fit(devices.X[rows], devices.true_ms[rows, -1]).predict(devices.X, return_std=True)[1].mean()
        )

    others = [mean_std(devices.rng.choice(300, 8, replace=False)) for _ in range(10)]
    assert mean_std(chosen) < np.mean(others)


def test_it_is_cloned_as_an_estimator_of_scikit_learn() -> None:
    assert clone(LatencyTransfer(3, (2, 1))).get_params() == {"num_sources": 3, "groups": (2, 1)}


@pytest.mark.parametrize(
    ("X", "latency_ms", "message"),
    [
        (np.ones((2, 9)), [1.0, 2.0], "2 networks and latencies of shape (2,) can't be fitted; give one latency a"),
        (np.ones((4, 9)), [1.0, 2.0], "4 networks and latencies of shape (2,) can't be fitted"),
        (np.ones((3, 9)), [1.0, 2.0, 0.0], "measured latencies must be positive and finite"),
        (np.ones((3, 8)), [1.0, 2.0, 3.0], "features of shape (3, 8) must have 9 columns"),
        (np.full((3, 9), np.nan), [1.0, 2.0, 3.0], "features must be finite"),
    ],
)
def test_bad_input_is_refused(X: np.ndarray, latency_ms: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Devices().model().fit(X, latency_ms)


def test_bad_sources_and_selections_are_refused() -> None:
    devices = Devices()
    with pytest.raises(ValueError, match=re.escape("must be (300, 5), none all NaN")):
        LatencyTransfer(5, (NUM_OPERATIONS,)).pretrain(devices.X, np.full((300, 5), np.nan))
    with pytest.raises(ValueError, match="301 networks can't be selected from 300"):
        devices.model().select(devices.X, 301)
