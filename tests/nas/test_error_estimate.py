"""Estimates of errors, on networks whose true errors are known."""

import numpy as np
import pandas as pd
import pytest

from nas.error_estimate import MIN_NETWORKS, ErrorEstimate


def drawn(
    num_images: int, *, spread_pct: float, num: int = 40, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True errors in %, misses and cross-entropies; at equal cross-entropy errors differ by `spread_pct`."""
    rng = np.random.default_rng(seed)
    cross_entropy_N = rng.uniform(0.5, 1.0, num)
    error_N = 10 + 20 * cross_entropy_N + rng.normal(0, spread_pct, num)
    return error_N, rng.uniform(0, 100, (num, num_images)) < error_N[:, None], cross_entropy_N


@pytest.mark.parametrize(("num_images", "spread_pct"), [(200, 3.0), (1000, 1.4), (5000, 0.6)])
def test_the_estimate_is_closer_to_the_truth_than_the_count_and_than_what_cross_entropy_lets_expect(
    num_images: int, spread_pct: float
) -> None:
    errors = []
    for seed in range(20):
        truth_N, misses_NI, cross_entropy_N = drawn(num_images, spread_pct=spread_pct, seed=seed)
        counted_N = 100 * misses_NI.mean(axis=1)
        estimate = ErrorEstimate.fit(misses_NI, cross_entropy_N)
        expected_N = np.polyval(np.polyfit(cross_entropy_N, counted_N, 1), cross_entropy_N)
        found = (estimate(counted_N, cross_entropy_N), counted_N, expected_N)
        errors.append([np.sqrt(np.mean((values_N - truth_N) ** 2)) for values_N in found])
    estimated, counted, expected = np.mean(errors, axis=0)
    assert estimated < 0.9 * counted
    assert estimated < 0.9 * expected


def test_what_is_believed_of_the_count_is_what_chance_does_not_explain() -> None:
    shares = [
        np.mean([ErrorEstimate.fit(*drawn(1000, spread_pct=spread, seed=seed)[1:]).per_error for seed in range(20)])
        for spread in (0.0, 1.4, 10.0)  # chance alone is about 1.4
    ]
    assert shares[0] < 0.15
    assert shares[1] == pytest.approx(0.5, abs=0.15)
    assert shares[2] > 0.95


def test_what_all_networks_miss_is_not_taken_for_chance() -> None:
    _, misses_NI, cross_entropy_N = drawn(1000, spread_pct=1.4)
    easy_and_hard = np.concatenate([misses_NI, np.ones((40, 500), bool), np.zeros((40, 500), bool)], axis=1)
    found, alone = ErrorEstimate.fit(easy_and_hard, cross_entropy_N), ErrorEstimate.fit(misses_NI, cross_entropy_N)
    assert found.per_error == pytest.approx(alone.per_error, abs=0.01)


def test_more_images_tell_what_of_fewer_will_be_chance() -> None:
    of_few, of_many = [], []
    for seed in range(20):
        _, misses_NI, cross_entropy_N = drawn(
            4000, spread_pct=1.0, seed=seed
        )  # chance of 400 images is 2.2, of 4,000 0.7
        few = ErrorEstimate.fit(misses_NI[:, :400], cross_entropy_N)
        many = ErrorEstimate.fit(misses_NI, cross_entropy_N, num_images=400)
        of_few.append(few.per_error)
        of_many.append(many.per_error)
    assert np.mean(of_few) == pytest.approx(np.mean(of_many), abs=0.07)
    assert np.std(of_many) < 0.5 * np.std(of_few)
    assert ErrorEstimate.fit(misses_NI, cross_entropy_N, num_images=4000) == ErrorEstimate.fit(
        misses_NI, cross_entropy_N
    )


def test_estimates_have_the_mean_of_the_counts() -> None:
    _, misses_NI, cross_entropy_N = drawn(300, spread_pct=1.0)
    counted_N = 100 * misses_NI.mean(axis=1)
    estimated_N = ErrorEstimate.fit(misses_NI, cross_entropy_N)(counted_N, cross_entropy_N)
    assert estimated_N.mean() == pytest.approx(counted_N.mean())


def test_with_little_to_learn_from_the_count_is_the_estimate() -> None:
    _, misses_NI, cross_entropy_N = drawn(300, spread_pct=1.0)
    few = MIN_NETWORKS - 1
    assert ErrorEstimate.fit(misses_NI[:few], cross_entropy_N[:few]) == ErrorEstimate()
    assert ErrorEstimate.fit(misses_NI, np.full(40, 0.7)) == ErrorEstimate()
    endless_N = np.where(np.arange(40) < few, cross_entropy_N, np.inf)
    assert ErrorEstimate.fit(misses_NI, endless_N) == ErrorEstimate()
    assert ErrorEstimate.fit(np.array([]), np.array([])) == ErrorEstimate()  # of no network that could be evaluated
    assert ErrorEstimate()(12.5, 3.0) == 12.5


def test_networks_without_finite_cross_entropy_are_left_out() -> None:
    _, misses_NI, cross_entropy_N = drawn(300, spread_pct=1.0)
    alone = ErrorEstimate.fit(misses_NI[1:], cross_entropy_N[1:])
    assert ErrorEstimate.fit(misses_NI, np.concatenate([[np.nan], cross_entropy_N[1:]])) == alone


def test_rows_tell_what_estimated_them() -> None:
    estimate = ErrorEstimate(constant=3.0, per_error=0.3, per_nat=20.0)
    frame = pd.DataFrame({"error_pct": [10.0, 12.0, 11.0, np.nan], "cross_entropy": [0.3, 0.5, 0.45, np.nan]})
    frame["estimated_error_pct"] = estimate(frame["error_pct"], frame["cross_entropy"])
    found = ErrorEstimate.of_rows(frame)
    assert (found.constant, found.per_error, found.per_nat) == pytest.approx((3.0, 0.3, 20.0))
    assert np.isfinite(ErrorEstimate.of_rows(frame.drop(columns="cross_entropy")).constant)  # nothing is measured yet
    same = frame.assign(estimated_error_pct=frame["error_pct"])
    assert ErrorEstimate.of_rows(same)(14.0, 0.9) == pytest.approx(14.0)
