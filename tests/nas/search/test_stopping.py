import itertools
from dataclasses import replace

import pytest

from nas.errors import UserError
from nas.search import Focus, optimize
from nas.search.problem import SearchProblem
from nas.search.stopping import HypervolumeMeasure, StopRule
from nas.search.study import Row
from tests.nas.search.problems import CHOICES, LARGE_CHOICES, OBJECTIVES, evaluate_large

PROBLEM = SearchProblem(choices=CHOICES, objectives=OBJECTIVES)
LARGE = {"choices": LARGE_CHOICES, "objectives": OBJECTIVES, "searcher": "random"}


def row(index: int, error_pct: float, latency_ms: float, *, batch: int = 0, reason: str = "") -> Row:
    values = {} if reason else {"error_pct": error_pct, "latency_ms": latency_ms}
    return Row(index=index, batch=batch, genotype={}, values=values, reason=reason)


def test_hypervolume_is_in_units_of_the_first_batch_and_ignores_failed_rows():
    rows = [row(0, 10.0, 3.0), row(1, 20.0, 1.0), row(2, 0.0, 0.0, reason="broken")]
    assert HypervolumeMeasure(PROBLEM, rows)(rows) == pytest.approx(1.1 * 0.1 + 0.1 * 1.0)
    later = [*rows, row(3, 10.0, 1.0, batch=1)]
    assert HypervolumeMeasure(PROBLEM, later)(later) == pytest.approx(1.1 * 1.1)
    assert HypervolumeMeasure(PROBLEM, later).is_fixed
    assert not HypervolumeMeasure(PROBLEM, rows).is_fixed
    assert HypervolumeMeasure(PROBLEM, [])([]) == 0.0


def test_growth_below_the_stated_share_during_patience_stops():
    grown = [row(i, 50.0 - i, 1.0 + i) for i in range(10)]
    still = [*grown, *(row(10 + i, 60.0, 20.0, batch=1) for i in range(10))]
    rule = StopRule(num_evaluations=100, patience=10)
    assert rule.has_stopped_growing(PROBLEM, still)
    assert not rule.has_stopped_growing(PROBLEM, grown)
    assert not rule.has_stopped_growing(PROBLEM, [*still, row(20, 1.0, 0.5, batch=2)])
    assert not StopRule(num_evaluations=100).has_stopped_growing(PROBLEM, still)


def test_growth_outside_a_focus_counts_for_nothing():
    first = [row(0, 50.0, 1.0), row(1, 10.0, 9.0), row(2, 30.0, 4.0)]
    slower = [row(3 + i, 9.0 - i, 6.0 + i / 2, batch=1) for i in range(5)]
    inside = [row(3 + i, 29.0 - i, 4.0, batch=1) for i in range(5)]
    rule = StopRule(num_evaluations=100, patience=5)
    focused = replace(PROBLEM, focus=(Focus(objective="latency_ms", low=2.0, high=5.0),))
    assert not rule.has_stopped_growing(PROBLEM, first + slower)
    assert rule.has_stopped_growing(focused, first + slower)
    assert not rule.has_stopped_growing(focused, first + inside)


def test_hypervolume_of_a_focus_is_that_of_its_box():
    focused = replace(PROBLEM, focus=(Focus(objective="latency_ms", low=2.0, high=4.0),))
    rows = [row(0, 20.0, 1.0), row(1, 10.0, 3.0), row(2, 0.0, 5.0)]
    # From 2 to 4 ms the first row covers the whole width, the second the better half; the third is outside.
    assert HypervolumeMeasure(focused, rows)(rows) == pytest.approx(1.1 * 0.1 + 0.55 * 0.5)
    assert HypervolumeMeasure(focused, rows[2:])(rows[2:]) == 0.0


def test_search_without_growth_ends_early_and_at_the_same_row_when_resumed(tmp_path):
    def flat(genotype):
        return {"error_pct": 1.0, "latency_ms": 1.0}

    options = {**LARGE, "num_evaluations": 500, "patience": 15}
    frame = optimize(flat, **options)
    assert len(frame) == 20
    assert frame.attrs["stopped"] == "the hypervolume grew by less than 0.1% in 15 evaluations"
    optimize(flat, **{**options, "num_evaluations": 7}, study=tmp_path / "study.db")
    assert len(optimize(flat, **options, study=tmp_path / "study.db")) == 20


def test_time_limit_begins_no_further_evaluation_and_the_search_continues_later(tmp_path):
    ticks = itertools.count()
    options = {**LARGE, "num_evaluations": 20, "study": tmp_path / "study.db"}
    frame = optimize(evaluate_large, **options, time_limit_s=12, clock=lambda: next(ticks))
    assert 0 < len(frame) < 20
    assert frame.attrs["stopped"] == "the time limit was reached"
    whole = optimize(evaluate_large, **options)
    assert len(whole) == 20
    assert whole.attrs["stopped"] == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"time_limit_s": 0.0}, "a time limit of 0 s"), ({"patience": 0}, "patience=0 must be 1 or more")],
)
def test_impossible_rule_is_one_line(changes, message):
    with pytest.raises(UserError, match=message):
        optimize(evaluate_large, **LARGE, num_evaluations=5, **changes)
