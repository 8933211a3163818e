import os
import re
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest

from nas.errors import CandidateError, UserError
from nas.search import Objective, optimize, parse_constraint, parse_focus
from nas.search.objectives import as_costs
from nas.search.pareto import hypervolume, on_front, pareto_front
from search_spaces.space import Choice
from tests.nas.search.problems import (
    CHOICES,
    LARGE_CHOICES,
    NUM_DISTINCT,
    OBJECTIVES,
    SEARCHER_NAMES,
    canonical,
    evaluate,
    evaluate_large,
)

VOLATILE = ["seconds", "host"]
SMALL = {"choices": CHOICES, "objectives": OBJECTIVES, "canonical": canonical}


def _cheap_latency(genotypes):
    values = np.array([evaluate_large(genotype)["latency_ms"] for genotype in genotypes])
    return {"latency_ms": values, "macs": 10 * values}


def _error_only(genotype):
    return {"error_pct": evaluate_large(genotype)["error_pct"]}


LIMITED = {
    "choices": LARGE_CHOICES,
    "objectives": (OBJECTIVES[0], Objective("latency_ms", expensive=False)),
    "cheap": _cheap_latency,
}


def test_predictor_guided_search_finds_the_true_front_of_a_small_space():
    everything = optimize(evaluate, **SMALL, num_evaluations=10_000, searcher="random")
    assert len(everything) == NUM_DISTINCT
    frame = optimize(evaluate, **SMALL, num_evaluations=250)
    fronts = [as_costs(pareto_front(rows, OBJECTIVES), OBJECTIVES) for rows in (everything, frame, frame[:60])]
    true_front, found, early = fronts
    assert len(true_front) == 40
    assert (found == true_front).all()
    reference = np.array([60.0, 6.0])
    assert hypervolume(early, reference) > 0.985 * hypervolume(true_front, reference)


@pytest.mark.parametrize("range_ms", ["latency_ms=8..12", "latency_ms=30..34"])
def test_focus_spends_evaluations_inside_its_range(range_ms):
    focus = parse_focus(range_ms)
    limits = [*focus.limits]
    options = {"objectives": OBJECTIVES, "num_evaluations": 60}
    plain, focused = (optimize(evaluate_large, LARGE_CHOICES, **options, focus=f) for f in ((), (focus,)))
    inside = [frame["latency_ms"].between(focus.low, focus.high) for frame in (plain, focused)]
    assert inside[0][20:].mean() < 0.4 < 0.8 < inside[1][20:].mean()
    assert (plain[:20]["latency_ms"] == focused[:20]["latency_ms"]).all()
    volumes = [
        hypervolume(as_costs(pareto_front(frame, OBJECTIVES, limits), OBJECTIVES), np.array([100.0, focus.high]))
        for frame in (plain, focused)
    ]
    assert volumes[1] > volumes[0]


def test_focus_of_an_objective_to_maximise_and_of_two_is_kept():
    objectives = [Objective("gain", maximize=True), Objective("latency_ms")]
    focus = (parse_focus("gain=20..24"), parse_focus("latency_ms=10..20"))
    frame = optimize(
        lambda genotype: {**(values := evaluate_large(genotype)), "gain": 100 - values["error_pct"]},
        LARGE_CHOICES,
        objectives=objectives,
        num_evaluations=50,
        focus=focus,
    )
    assert (frame["gain"].between(20, 24) & frame["latency_ms"].between(10, 20))[20:].mean() > 0.7


def test_focus_is_part_of_the_study_and_refused_where_it_would_be_ignored(tmp_path):
    options = {**SMALL, "objectives": OBJECTIVES, "num_evaluations": 5, "study": tmp_path / "study.db"}
    optimize(evaluate, **options, focus=[parse_focus("latency_ms=1..2")])
    with pytest.raises(UserError, match=re.escape("latency_ms=1..2")):
        optimize(evaluate, **options)
    for name in SEARCHER_NAMES:
        if not name.startswith("predictor-guided"):
            with pytest.raises(UserError, match="can't focus on latency_ms=1..2; take the searcher predictor-guided"):
                optimize(evaluate, **options, searcher=name, focus=[parse_focus("latency_ms=1..2")])
    with pytest.raises(UserError, match="unknown objective 'macs'"):
        optimize(evaluate, **options, focus=[parse_focus("macs=1..2")])
    with pytest.raises(UserError, match="focus 'latency_ms' is given twice"):
        optimize(evaluate, **options, focus=[parse_focus("latency_ms=1..2"), parse_focus("latency_ms=3..4")])


def test_frame_has_the_rows_in_order_of_evaluation():
    asked = []
    objectives = [Objective("error_pct"), Objective("speed", maximize=True)]

    def measure(genotype):
        asked.append(genotype)
        values = evaluate(genotype)
        return values["error_pct"], -values["latency_ms"]

    seen = []
    frame = optimize(
        measure,
        CHOICES,
        objectives=objectives,
        canonical=canonical,
        num_evaluations=25,
        progress=lambda *args: seen.append(args),
    )
    assert frame[[c.name for c in CHOICES]].to_dict("records") == asked
    assert frame["index"].tolist() == list(range(25))
    assert frame["batch"].tolist() == [0] * 10 + [1] * 10 + [2] * 5
    assert len({tuple(g.items()) for g in asked}) == 25
    assert [args[:2] for args in seen] == [(i + 1, 25) for i in range(25)]
    front = on_front(frame, objectives).sum()
    assert re.fullmatch(rf"25/25 evaluations, front {front}, hypervolume \d\.\d{{4}}", seen[-1][2])


# Without gp, whose asks take seconds: that they are pure is tested with the searchers.
@pytest.mark.parametrize("searcher", [name for name in SEARCHER_NAMES if name != "gp"])
def test_interrupted_anywhere_and_continued_gives_the_rows_of_an_undisturbed_search(searcher, tmp_path):
    options = {"choices": LARGE_CHOICES, "objectives": OBJECTIVES, "searcher": searcher, "batch_size": 6}
    undisturbed = optimize(evaluate_large, **options, num_evaluations=20)
    measured = []
    calls = 0

    def interrupted(genotype):
        nonlocal calls
        calls += 1
        if calls % 4 == 0:
            raise KeyboardInterrupt
        measured.append(tuple(genotype.items()))
        return evaluate_large(genotype)

    for _ in range(30):
        try:
            frame = optimize(interrupted, **options, num_evaluations=20, study=tmp_path / "study.db")
            break
        except KeyboardInterrupt:
            continue
    pd.testing.assert_frame_equal(frame.drop(columns=VOLATILE), undisturbed.drop(columns=VOLATILE))
    assert len(measured) == len(set(measured)) == 20


def test_killed_process_leaves_a_study_that_continues(tmp_path):
    script = """
        import os, signal, sys
        from nas.search import optimize
        from tests.nas.search.problems import LARGE_CHOICES, OBJECTIVES, evaluate_large

        left = 13

        def measure(genotype):
            global left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return evaluate_large(genotype)

        optimize(measure, LARGE_CHOICES, objectives=OBJECTIVES, num_evaluations=25, study=sys.argv[1])
    """
    path = tmp_path / "study.db"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    asked = []
    frame = optimize(
        lambda genotype: asked.append(genotype) or evaluate_large(genotype),
        LARGE_CHOICES,
        objectives=OBJECTIVES,
        num_evaluations=25,
        study=path,
    )
    assert len(asked) == 25 - 13
    undisturbed = optimize(evaluate_large, LARGE_CHOICES, objectives=OBJECTIVES, num_evaluations=25)
    pd.testing.assert_frame_equal(frame.drop(columns=VOLATILE), undisturbed.drop(columns=VOLATILE))


def test_more_evaluations_extend_a_study_as_if_asked_for_at_once(tmp_path):
    for num_evaluations in (7, 13, 13, 25):
        frame = optimize(evaluate, **SMALL, num_evaluations=num_evaluations, study=tmp_path / "study.db")
        assert len(frame) == num_evaluations
    at_once = optimize(evaluate, **SMALL, num_evaluations=25)
    pd.testing.assert_frame_equal(frame.drop(columns=VOLATILE), at_once.drop(columns=VOLATILE))


def test_other_settings_are_refused_and_the_study_stays(tmp_path):
    optimize(evaluate, **SMALL, num_evaluations=5, study=tmp_path / "study.db", settings={"data": "a"})
    with pytest.raises(UserError, match='data "a", now "b", seed 0, now 1'):
        optimize(evaluate, **SMALL, num_evaluations=9, study=tmp_path / "study.db", settings={"data": "b"}, seed=1)
    again = optimize(evaluate, **SMALL, num_evaluations=5, study=tmp_path / "study.db", settings={"data": "a"})
    assert len(again) == 5


def test_failed_evaluations_are_rows_with_a_reason_and_never_measured_again():
    def fragile(genotype):
        if genotype["mixer"] == "attention":
            raise RuntimeError("no attention here\nsecond line")
        values = evaluate(genotype)
        return values | {"error_pct": float("nan")} if genotype["norm"] else values | {"spread_pct": 1.0}

    frame = optimize(fragile, **SMALL, num_evaluations=60)
    assert len(frame) == 60
    assert not frame.duplicated([c.name for c in CHOICES]).any()
    attention = frame["mixer"] == "attention"
    assert (frame.loc[attention, "reason"] == "RuntimeError: no attention here").all()
    assert (frame.loc[~attention & frame["norm"], "reason"] == "error_pct is nan").all()
    complete = frame[frame["state"] == "complete"]
    assert len(complete) > 5
    assert complete[["error_pct", "latency_ms", "spread_pct"]].notna().all(axis=None)
    assert frame.loc[frame["state"] == "failed", "error_pct"].isna().all()


def test_search_in_which_everything_fails_stops_after_a_batch():
    def broken(genotype):
        raise OSError("no device")

    with pytest.raises(UserError, match="every evaluation failed, .*OSError: no device"):
        optimize(broken, **SMALL, num_evaluations=60)


def test_cheap_objectives_are_computed_and_constraints_keep():
    limit = parse_constraint("macs<=100")
    frame = optimize(_error_only, **LIMITED, num_evaluations=30, constraints=[limit])
    expected = [evaluate_large(g)["latency_ms"] for g in frame[[c.name for c in LARGE_CHOICES]].to_dict("records")]
    assert frame["latency_ms"].tolist() == pytest.approx(expected)
    assert (frame["macs"] <= 100).all()
    assert "predicted_latency_ms" not in frame
    assert frame["predicted_error_pct"].notna().sum() == 10  # after the first 20, which are spread


@pytest.mark.parametrize("searcher", SEARCHER_NAMES)
def test_rare_feasible_candidates_are_found(searcher):
    limit = parse_constraint("latency_ms<=2.2")
    frame = optimize(_error_only, **LIMITED, num_evaluations=3, constraints=[limit], searcher=searcher)
    assert len(frame) == 3
    assert (frame["latency_ms"] <= 2.2).all()


def test_constraint_no_candidate_meets_is_refused_with_the_best_value():
    with pytest.raises(UserError, match="no candidate meets latency_ms<=0.5: the lowest latency_ms found is 1;"):
        optimize(_error_only, **LIMITED, num_evaluations=3, constraints=[parse_constraint("latency_ms<=0.5")])
    both = [parse_constraint("latency_ms<=3"), parse_constraint("macs>=40")]
    with pytest.raises(UserError, match="no candidate meets latency_ms<=3 and macs>=40 together"):
        optimize(_error_only, **LIMITED, num_evaluations=3, constraints=both)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_evaluations": 0}, "must be 1 or more"),
        ({"choices": ()}, "at least one choice"),
        ({"choices": (*CHOICES, CHOICES[0])}, "choice 'depth' is given twice"),
        ({"objectives": OBJECTIVES[:1]}, "two or more objectives, not 1"),
        ({"objectives": (*OBJECTIVES, Objective("macs", expensive=False))}, "'macs' is declared cheap"),
        ({"constraints": [parse_constraint("latency<=2")]}, "unknown objective 'latency'.*Did you mean latency_ms"),
        ({"initial": [{"depth": 1}]}, "lacks the gene 'kernel.0'"),
        ({"initial": [{c.name: 99 for c in CHOICES}]}, "gene 'depth' is 99, but must be one of"),
        ({"searcher": "rondom"}, "Did you mean random"),
    ],
)
def test_ill_posed_problem_is_one_line(changes, message):
    options = {**SMALL, "num_evaluations": 5} | changes
    with pytest.raises(UserError, match=message) as caught:
        optimize(evaluate, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ((1.0,), "evaluate gave 1 values, but must give 2: error_pct, latency_ms"),
        ({"error_pct": 1.0}, "evaluate gave no 'latency_ms'"),
    ],
)
def test_evaluation_that_lacks_an_objective_ends_the_search(result, message):
    with pytest.raises(UserError, match=message):
        optimize(lambda genotype: result, **SMALL, num_evaluations=5)


def test_evaluation_must_not_give_what_is_computed():
    with pytest.raises(UserError, match="'latency_ms' is computed by `cheap` and given by evaluate"):
        optimize(evaluate_large, **LIMITED, num_evaluations=5)


def test_three_objectives_and_a_single_candidate_space():
    objectives = (*OBJECTIVES, Objective("size", maximize=True))
    frame = optimize(
        lambda genotype: {**evaluate(genotype), "size": float(genotype["width"])},
        CHOICES,
        objectives=objectives,
        num_evaluations=40,
    )
    assert len(frame) == 40
    single = optimize(lambda g: (1.0, 2.0), [Choice(name="a", values=(1,))], objectives=OBJECTIVES, num_evaluations=9)
    assert len(single) == 1


def test_an_impossible_candidate_is_a_failed_row_and_a_broken_supernet_ends_the_search():
    def impossible_once(genotype):
        if not seen:
            seen.append(genotype)
            raise CandidateError("block 'stem' was always zero")
        return evaluate(genotype)

    def broken(genotype):
        raise UserError("weights are not finite")

    seen: list = []
    frame = optimize(impossible_once, **SMALL, num_evaluations=3, searcher="random")
    assert list(frame["state"]) == ["failed", "complete", "complete"]
    assert frame["reason"][0] == "block 'stem' was always zero"
    with pytest.raises(UserError, match="weights are not finite"):
        optimize(broken, **SMALL, num_evaluations=3, searcher="random")
