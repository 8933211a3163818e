import numpy as np
import pandas as pd
import pytest

from nas.errors import UserError
from nas.search import Constraint, Focus, Objective, parse_constraint, parse_focus
from nas.search.objectives import as_costs, focus_box, violations


def test_constraint_reads_and_writes_the_same_text():
    for text in ("latency_ms<=2.5", "error_pct>=1e-06", "params<=1.2e+06"):
        assert str(parse_constraint(text)) == text
    assert parse_constraint(" latency_ms <= 2 ") == Constraint(objective="latency_ms", op="<=", bound=2.0)


@pytest.mark.parametrize(
    "text", ["latency_ms<2", "latency_ms<=fast", "<=2", "latency_ms<=2<=3", "a<=nan", "a<=inf", ""]
)
def test_malformed_constraint_is_refused_with_an_example(text):
    with pytest.raises(UserError, match="such as latency_ms<=2.5"):
        parse_constraint(text)


def test_constraint_on_an_unknown_objective_suggests_the_nearest():
    with pytest.raises(UserError, match="unknown objective 'latency'; available: .*Did you mean latency_ms"):
        parse_constraint("latency<=2", names=["error_pct", "latency_ms"])


def test_focus_reads_and_writes_the_same_text():
    for text in ("latency_ms=1..2", "error_pct=-0.5..1e+06", "params=0..1"):
        assert str(parse_focus(text)) == text
    assert parse_focus(" latency_ms = .5..5e1 ") == Focus(objective="latency_ms", low=0.5, high=50.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(
            (text, "such as latency_ms=1..2")
            for text in ("latency_ms=1", "latency_ms=1..", "=1..2", "a=1..2..3", "a=nan..1", "")
        ),
        ("latency_ms=2..1", "from a lower to a higher value"),
        ("latency_ms=1..1", "from a lower to a higher value"),
        ("latency=1..2", "unknown objective 'latency'; .*Did you mean latency_ms"),
    ],
)
def test_bad_focus_is_refused_in_one_line(text, message):
    with pytest.raises(UserError, match=message):
        parse_focus(text, names=["error_pct", "latency_ms"])


def test_box_of_a_focus_is_in_costs_and_open_elsewhere():
    objectives = [Objective("accuracy", maximize=True), Objective("latency_ms"), Objective("macs")]
    box = focus_box([parse_focus("accuracy=70..80"), parse_focus("latency_ms=1..2")], objectives)
    assert box.tolist() == [[-80, 1, -np.inf], [-70, 2, np.inf]]


def test_violation_is_positive_exactly_where_the_bound_is_broken():
    values = np.array([1.0, 2.0, 3.0])
    assert (Constraint(objective="a", op="<=", bound=2.0).violation(values) > 0).tolist() == [False, False, True]
    assert (Constraint(objective="a", op=">=", bound=2.0).violation(values) > 0).tolist() == [True, False, False]
    assert (Constraint(objective="a", op="<=", bound=0.0).violation(values) > 0).all()


def test_costs_turn_what_is_maximised_around():
    frame = pd.DataFrame({"accuracy": [1.0, 2.0], "latency_ms": [3.0, 4.0]})
    costs = as_costs(frame, [Objective("latency_ms"), Objective("accuracy", maximize=True)])
    assert costs.tolist() == [[3.0, -1.0], [4.0, -2.0]]
    assert violations(frame, []).shape == (2, 0)
