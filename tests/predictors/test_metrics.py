"""Prediction metrics."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictors.metrics import prediction_metrics

positive_lists = st.lists(st.floats(0.1, 1e3), min_size=3, max_size=30, unique=True)


@given(positive_lists)
def test_perfect_prediction_has_no_error_and_full_correlation(true: list[float]) -> None:
    metrics = prediction_metrics(true, true)
    assert metrics["mape_pct"] == metrics["mae"] == 0
    assert metrics["within_10pct"] == 100
    assert metrics["spearman"] == pytest.approx(1)
    assert metrics["kendall"] == pytest.approx(1)


@given(positive_lists)
def test_reversed_ranking_has_correlation_minus_one(true: list[float]) -> None:
    metrics = prediction_metrics(true, [-value for value in true])
    assert metrics["spearman"] == pytest.approx(-1)
    assert metrics["kendall"] == pytest.approx(-1)


def test_errors_agree_with_a_count_by_hand() -> None:
    metrics = prediction_metrics([1.0, 2.0, 4.0, 10.0], [1.05, 2.5, 4.0, 8.0])
    assert metrics["mape_pct"] == pytest.approx((5 + 25 + 0 + 20) / 4)
    assert metrics["within_10pct"] == pytest.approx(50)
    assert metrics["mae"] == pytest.approx((0.05 + 0.5 + 0 + 2) / 4)


def test_a_ranking_error_shows_in_kendall() -> None:
    metrics = prediction_metrics([1, 2, 3, 4], [1, 3, 2, 4])
    assert metrics["kendall"] == pytest.approx(4 / 6)
    assert metrics["spearman"] == pytest.approx(0.8)


def test_a_constant_prediction_ranks_nothing() -> None:
    metrics = prediction_metrics([1, 2, 3], [2, 2, 2])
    assert metrics["spearman"] == metrics["kendall"] == 0


def test_a_zero_truth_counts_in_the_absolute_error_only() -> None:
    metrics = prediction_metrics([0.0, 1.0, 2.0], [0.3, 1.0, 2.0])
    assert metrics["mape_pct"] == 0
    assert metrics["mae"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("true", "predicted", "rule"),
    [
        ([1, 2], [1, 2], "at least 3"),
        ([1, 2, np.nan], [1, 2, 3], "finite"),
        ([1, 2, 3], [1, np.inf, 3], "finite"),
        ([1, 2, 3], [1, 2, 3, 4], "equal length"),
        ([[1, 2, 3]], [[1, 2, 3]], "equal length"),
        ([0, 0, 0], [1, 2, 3], "every true value is 0"),
    ],
)
def test_values_that_cannot_be_compared_are_refused(true: list, predicted: list, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        prediction_metrics(true, predicted)
