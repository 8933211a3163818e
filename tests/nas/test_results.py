import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from nas.errors import UserError
from nas.results import LEFT_OUT, MEASURED, best_values, front, load_results, load_study, select, write_pareto_csv
from nas.search.objectives import Constraint, as_costs
from nas.search.pareto import knee, on_front
from nas.tables import results_table
from tests.nas.run_folders import OBJECTIVES, make_run, make_study, write_verified


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("verified") / "run")


@pytest.fixture(scope="module")
def searching(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("searching") / "run", trained=False, profiled=False, verified=False)


def test_every_candidate_is_a_row_with_measured_values_where_it_was_verified(run: Path) -> None:
    frame = load_results(run)
    rows = {row["index"]: row for row in json.loads((run / "verified.json").read_text())["rows"]}
    assert list(frame["index"]) == list(range(12))
    assert set(frame["index"][frame["verified"]]) == set(rows)
    for index, row in rows.items():
        assert {name: frame[name][index] for name in MEASURED} == {name: row[name] for name in MEASURED}
        assert (frame["on_front"][index], frame["front_reason"][index]) == (row["on_front"], row["reason"])
    assert frame.loc[~frame["verified"], list(MEASURED)].isna().all(axis=None)
    assert frame["on_front"].dtype == bool


def test_members_of_the_front_that_were_not_exported_say_so(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    content = json.loads((folder / "verified.json").read_text())
    kept, *left_out = [row["index"] for row in content["rows"] if row["on_front"]]
    content["rows"] = [row for row in content["rows"] if row["index"] not in left_out]
    (folder / "verified.json").write_text(json.dumps(content))
    frame = load_results(folder)
    assert left_out
    assert frame["index"][frame["front_reason"] == LEFT_OUT].tolist() == sorted(left_out)
    assert frame["index"][frame["on_front"]].tolist() == [kept]


def test_before_verification_the_front_is_by_searched_values(searching: Path) -> None:
    frame = load_results(searching)
    assert frame["on_front"].tolist() == on_front(frame, OBJECTIVES).tolist()
    assert frame[list(MEASURED)].isna().all(axis=None)
    assert not frame["verified"].any()


def test_a_front_that_was_exported_for_another_machine_says_so_until_it_is_verified(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", verified=False)
    (folder / "exported.json").write_text(json.dumps({"target": "Board with openvino 1", "rows": []}))
    frame = load_results(folder)
    assert (frame["front_reason"] == np.where(frame["on_front"], "not verified on Board with openvino 1", "")).all()
    assert (pd.read_csv(write_pareto_csv(folder))["front_reason"] == "not verified on Board with openvino 1").all()
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(results_table(frame))
    assert "Pareto front (searched, not verified on Board with openvino 1)" in console.export_text()
    write_verified(folder, load_study(folder))
    assert not load_results(folder)["front_reason"].str.contains("not verified").any()
    assert "front_reason" not in pd.read_csv(write_pareto_csv(folder))


def test_before_verification_the_front_keeps_the_constraints(tmp_path: Path) -> None:
    study, _ = make_study(tmp_path / "study.db", num_rows=8)
    bound = float(study.frame()["latency_ms"].median())
    (tmp_path / "study.db").unlink()
    make_study(
        tmp_path / "study.db", num_rows=8, constraints=[Constraint(objective="latency_ms", op="<=", bound=bound)]
    )
    assert (front(load_results(tmp_path))["latency_ms"] <= bound).all()


def test_a_study_without_rows_has_an_empty_front(tmp_path: Path) -> None:
    make_study(tmp_path / "study.db", num_rows=0)
    frame = load_results(tmp_path)
    assert len(front(frame)) == 0
    with pytest.raises(UserError, match="the run has no front yet; wait for the search"):
        select(frame, "knee")


def test_a_policy_study_has_its_own_verification_and_table(searching: Path) -> None:
    study, _ = make_study(searching / "study-largest.db", num_rows=5)
    write_verified(searching, study)
    frame = load_results(searching, study="study-largest.db")
    assert (len(frame), frame["verified"].any()) == (5, True)
    assert write_pareto_csv(searching, study="study-largest.db") == searching / "pareto-largest.csv"
    assert not load_results(searching)["verified"].any()


def test_the_front_is_sorted_by_measured_latency(run: Path) -> None:
    members = front(load_results(run))
    assert members["measured_latency_ms"].is_monotonic_increasing
    assert members["on_front"].all()


def test_pareto_csv_holds_the_front_with_both_kinds_of_values(run: Path) -> None:
    table = pd.read_csv(write_pareto_csv(run))
    members = front(load_results(run))
    assert table["index"].tolist() == members["index"].tolist()
    np.testing.assert_allclose(table["measured_latency_ms"], members["measured_latency_ms"])
    assert {"error_pct", "macs", "stage1.width", "precision.stem"} <= set(table)


def test_selecting_all_knee_limits_and_indices(run: Path) -> None:
    frame = load_results(run)
    members = front(frame)
    everything = members["index"].tolist()
    assert select(frame, "all") == everything
    costs = as_costs({o.name: best_values(members, o.name) for o in OBJECTIVES}, OBJECTIVES)
    assert select(frame, "knee") == [everything[knee(costs)]]
    assert select(frame, f"{everything[-1]}, {everything[0]}") == [everything[0], everything[-1]]
    bound = float(members["measured_latency_ms"].iloc[1])
    assert select(frame, f"latency_ms<={bound!r}") == everything[:2]
    assert select(frame, f"latency_ms<={bound!r},latency_ms>={bound!r}") == everything[1:2]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("999", "model 999 is not on the front; choose of "),
        ("best", "cannot select 'best'; say knee, all, a limit such as latency_ms<=2, or one of"),
        ("latency_ms<=0", "no model of the front keeps latency_ms<=0; latency_ms is "),
        ("latencyms<=2", "unknown quantity 'latencyms'"),
        ("latency_ms<=fast", "constraint 'latency_ms<=fast' must be a name"),
    ],
)
def test_a_selection_that_fits_nothing_is_told(run: Path, what: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        select(load_results(run), what)
    assert "\n" not in str(error.value)


def test_missing_and_damaged_runs_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no run folder"):
        load_results(tmp_path / "none")
    with pytest.raises(UserError, match="there is no study"):
        load_results(tmp_path)
    make_study(tmp_path / "study.db", num_rows=3)
    for damage in ("{", "[]", '{"rows": 3}', '{"rows": [{"index": null}]}'):
        (tmp_path / "verified.json").write_text(damage)
        with pytest.raises(UserError, match="is damaged"):
            load_results(tmp_path)
