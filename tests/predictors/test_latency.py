"""The latency predictor, on simulated devices whose true costs are known."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError

from hardware_profiles.errors import ProfileError
from hardware_profiles.profile import HardwareProfile, NetworkRow
from predictors.latency import PADDING, LatencyPredictor
from predictors.metrics import prediction_metrics
from tests.hardware_profiles.profiles import make_profile

PRECISIONS = ("fp32", "int8", "int8-dynamic")
Network = tuple[tuple[str, str], ...]

networks_of_default_profile = st.lists(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["fp32", "int8"])), min_size=1, max_size=12),
    min_size=1,
    max_size=8,
)


def slow_sum(profile: HardwareProfile, network: Sequence[tuple[str, str]]) -> float:
    return profile.call_overhead_ms + sum(profile.latency_ms(key, precision) for key, precision in network)


def num_changes(network: Network) -> int:
    return sum(before[1] != after[1] for before, after in itertools.pairwise(network))


class Simulation:
    """A device with known block costs, from which noisy whole networks can be "measured"."""

    def __init__(self, true_ms: Callable[[float, Network], float], *, noise: float = 0.05, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.noise = noise
        costs = {
            (f"block {index}", precision): float(self.rng.uniform(0.02, 0.3))
            for index in range(40)
            for precision in PRECISIONS
        }
        self.profile = make_profile(latency_ms=costs)
        self.true_ms = true_ms

    def networks(self, num: int) -> tuple[list[Network], np.ndarray]:
        """Random networks and their true latency."""
        rows = sorted(self.profile.row_index)
        sampled = [
            tuple(rows[index] for index in self.rng.integers(len(rows), size=self.rng.integers(6, 26)))
            for _ in range(num)
        ]
        return sampled, np.array([self.true_ms(slow_sum(self.profile, network), network) for network in sampled])

    def measured(self, true_ms_N: np.ndarray) -> np.ndarray:
        return true_ms_N * (1 + self.noise * self.rng.standard_normal(len(true_ms_N)))


def test_a_change_of_precision_is_learned_and_beats_the_sum() -> None:
    for seed in range(5):
        device = Simulation(lambda sum_ms, network: 0.95 * sum_ms + 0.04 * num_changes(network), seed=seed)
        networks, true_ms = device.networks(40)
        held_out, held_out_ms = device.networks(200)
        plain = LatencyPredictor(device.profile)
        corrected = LatencyPredictor(device.profile).fit(networks, device.measured(true_ms))
        error_pct = prediction_metrics(held_out_ms, corrected.predict(held_out))["mape_pct"]
        assert error_pct < 4
        assert error_pct < 0.5 * prediction_metrics(held_out_ms, plain.predict(held_out))["mape_pct"]


def test_a_precision_slower_in_company_than_alone_is_learned() -> None:
    def true_ms(sum_ms: float, network: Network) -> float:
        return sum_ms + 0.03 * sum(precision == "int8-dynamic" for _, precision in network)

    device = Simulation(true_ms)
    networks, networks_ms = device.networks(40)
    held_out, held_out_ms = device.networks(200)
    predictor = LatencyPredictor(device.profile).fit(networks, device.measured(networks_ms))
    assert prediction_metrics(held_out_ms, predictor.predict(held_out))["mape_pct"] < 3


def test_a_cache_that_large_networks_do_not_fit_into_is_learned() -> None:
    """It holds eight blocks; the others of a network take three times as long as alone."""
    for seed in range(5):
        device = Simulation(
            lambda sum_ms, network: sum_ms * (1 + 2 * max(0, 1 - 8 / len(network))), noise=0.02, seed=seed
        )
        rows = [replace(row, size_bytes=20_000) for row in device.profile.rows]
        device.profile = replace(device.profile, rows=tuple(rows))
        networks, networks_ms = device.networks(60)
        held_out, held_out_ms = device.networks(200)
        predictor = LatencyPredictor(device.profile).fit(networks, device.measured(networks_ms))
        assert prediction_metrics(held_out_ms, predictor.predict(held_out))["mape_pct"] < 6


def test_where_only_the_scale_is_off_the_features_do_not_fit_the_noise() -> None:
    for seed in range(5):
        device = Simulation(lambda sum_ms, network: 0.9 * sum_ms, seed=seed)
        networks, networks_ms = device.networks(24)
        held_out, held_out_ms = device.networks(200)
        predictor = LatencyPredictor(device.profile).fit(networks, device.measured(networks_ms))
        assert prediction_metrics(held_out_ms, predictor.predict(held_out))["mape_pct"] < 3.5


def test_a_few_wild_measurements_hardly_move_the_fit() -> None:
    device = Simulation(lambda sum_ms, network: 0.95 * sum_ms + 0.04 * num_changes(network))
    networks, networks_ms = device.networks(40)
    held_out, held_out_ms = device.networks(200)
    measured_ms = device.measured(networks_ms)
    measured_ms[[3, 17, 29]] *= 3
    predictor = LatencyPredictor(device.profile).fit(networks, measured_ms)
    assert prediction_metrics(held_out_ms, predictor.predict(held_out))["mape_pct"] < 5


def test_the_stated_deviation_is_that_of_unseen_networks() -> None:
    device = Simulation(lambda sum_ms, network: 0.95 * sum_ms + 0.04 * num_changes(network))
    networks, networks_ms = device.networks(60)
    held_out, held_out_ms = device.networks(300)
    predictor = LatencyPredictor(device.profile).fit(networks, device.measured(networks_ms))
    predicted_ms, std_ms = predictor.predict_with_std(held_out)
    within = np.abs(device.measured(held_out_ms) - predicted_ms) <= 2 * std_ms
    assert 0.85 < within.mean() <= 1


def test_an_extrapolated_correction_stays_within_twice_the_observed_range() -> None:
    device = Simulation(lambda sum_ms, network: sum_ms + 0.1 * num_changes(network), noise=0.0)
    networks, networks_ms = device.networks(30)
    predictor = LatencyPredictor(device.profile).fit(networks, networks_ms)
    sums = np.array([slow_sum(device.profile, network) for network in networks])
    ratio = networks_ms / sums
    cheapest = min(device.profile.rows, key=lambda row: row.latency_ms)
    extreme = [[(cheapest.key, cheapest.precision)], [(cheapest.key, precision) for precision in PRECISIONS] * 30]
    ratio_of_extremes = predictor.predict(extreme) / LatencyPredictor(device.profile).predict(extreme)
    width = ratio.max() - ratio.min()
    assert (ratio_of_extremes > 0).all()
    assert (ratio_of_extremes >= ratio.min() - width - 1e-9).all()
    assert (ratio_of_extremes <= ratio.max() + width + 1e-9).all()


@given(networks_of_default_profile)
def test_before_fit_a_prediction_is_the_plain_sum(networks: list[list[tuple[str, str]]]) -> None:
    profile = make_profile()
    expected = [slow_sum(profile, network) for network in networks]
    np.testing.assert_allclose(LatencyPredictor(profile).predict(networks), expected)


def test_a_prediction_does_not_depend_on_the_other_networks() -> None:
    device = Simulation(lambda sum_ms, network: 0.95 * sum_ms + 0.04 * num_changes(network))
    predictor = LatencyPredictor(device.profile).fit(*device.networks(20))
    networks, _ = device.networks(50)
    alone = np.concatenate([predictor.predict([network]) for network in networks])
    np.testing.assert_allclose(predictor.predict(networks), alone)


def test_encoded_networks_are_padded_row_numbers() -> None:
    predictor = LatencyPredictor(make_profile())
    rows = predictor.encode([[("b", "fp32")], [("a", "int8"), ("b", "int8")]])
    assert rows.tolist() == [[2, PADDING], [1, 3]]
    np.testing.assert_allclose(predictor.predict_encoded(rows), [2.01, 3.01])
    assert predictor.predict([]).shape == (0,)


def test_from_profile_learns_from_the_networks_for_fitting_only() -> None:
    def row(scale: float, role: str, *blocks: tuple[str, str]) -> NetworkRow:
        latency_ms = scale * slow_sum(make_profile(), blocks)
        return NetworkRow(blocks=blocks, latency_ms=latency_ms, spread_pct=1.0, role=role)  # type: ignore[arg-type]

    blocks = [("a", "fp32"), ("b", "fp32"), ("b", "int8"), ("a", "int8")]
    networks = [row(2.0, "fit", *blocks[: num + 1]) for num in range(4)]
    networks += [row(50.0, "held-out", *blocks[: num + 1]) for num in range(4)]
    fitted = LatencyPredictor.from_profile(make_profile(networks=tuple(networks)))
    assert fitted.predict([[("a", "fp32")]])[0] == pytest.approx(2 * 1.01)
    too_few = LatencyPredictor.from_profile(make_profile(networks=tuple(networks[2:])))
    assert too_few.predict([[("a", "fp32")]])[0] == pytest.approx(1.01)


def test_a_block_without_a_row_is_named() -> None:
    with pytest.raises(ProfileError, match=r"'c' at precision 'fp32'; profile the space again"):
        LatencyPredictor(make_profile()).predict([[("c", "fp32")]])


def test_what_cannot_be_fitted_is_refused() -> None:
    predictor = LatencyPredictor(make_profile())
    network = [("a", "fp32")]
    with pytest.raises(ValueError, match="at least 3"):
        predictor.fit([network] * 2, [1.0, 1.0])
    with pytest.raises(ValueError, match="one latency a network"):
        predictor.fit([network] * 3, [1.0, 1.0])
    with pytest.raises(ValueError, match="positive and finite"):
        predictor.fit([network] * 3, [1.0, np.nan, 1.0])
    with pytest.raises(NotFittedError, match="fit the predictor"):
        predictor.predict_with_std([network])


def test_identical_networks_can_be_fitted() -> None:
    predictor = LatencyPredictor(make_profile()).fit([[("a", "fp32")]] * 12, [2.02] * 12)
    assert predictor.predict([[("a", "fp32")]])[0] == pytest.approx(2.02)
