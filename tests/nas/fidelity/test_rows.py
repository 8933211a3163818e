"""The table of trainings while it grows."""

from pathlib import Path

import pytest

from nas.errors import UserError
from nas.fidelity.options import FidelityOptions
from nas.fidelity.rows import INHERITED, Rows, load_rows
from nas.fidelity.sampling import Training, choose_members, plan_trainings
from tests.nas.training.runs import small_space

SPACE = small_space()
OPTIONS = FidelityOptions(num_architectures=3, repeats=2)
PLAN = plan_trainings(choose_members(SPACE, OPTIONS), OPTIONS)
VALUES = {"epochs": 1, "standalone_validation_pct": 61.0, "standalone_test_pct": 1 / 3, "seconds": 0.5}


def write(path: Path, plan: list[Training]) -> Rows:
    rows = Rows(path, SPACE)
    for training in plan:
        rows.append(training, VALUES)
    return rows


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    write(tmp_path / "rows.csv", PLAN[:2])
    frame = load_rows(tmp_path / "rows.csv")
    assert Rows(tmp_path / "rows.csv", SPACE).done == {(0, 0), (1, 0)}
    row, member = frame.iloc[1], PLAN[1].member
    assert (row["role"], row["macs"], row["params"]) == ("largest", member.macs, member.params)
    assert {choice.name: row[choice.name] for choice in SPACE.choices} == member.architecture.genotype
    assert row["standalone_test_pct"] == 1 / 3
    assert frame["band_mmacs"].isna().all()
    assert frame["inherited_test_pct"].isna().all()


@pytest.mark.parametrize("kept", [5, 300])
def test_a_row_cut_short_is_dropped_whole(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "rows.csv"
    write(path, PLAN[:1])
    whole = path.read_bytes()
    write(path, PLAN[1:2])
    path.write_bytes(path.read_bytes()[: len(whole) + 20] if kept > 5 else whole[:kept])
    rows = write(path, PLAN[2:3])
    assert rows.done == ({(0, 0), (2, 0)} if kept > 5 else {(2, 0)})
    assert len(load_rows(path)) == len(rows.done)


def test_finished_rows_are_in_order_and_hold_what_networks_inherit(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.csv", PLAN[::-1])
    frame = rows.finish({0: (1.0, 2.0, 0.1, 0.2, 10.0), 1: (3.0, 4.0, 0.3, 0.4, 30.0), 2: (5.0, 6.0, 0.5, 0.6, 50.0)})
    assert list(zip(frame["index"], frame["seed"], strict=True)) == [(0, 0), (1, 0), (2, 0), (2, 1)]
    assert frame["inherited_validation_pct"].tolist() == [1.0, 3.0, 5.0, 5.0]
    assert frame["inherited_test_pct"].tolist() == [2.0, 4.0, 6.0, 6.0]
    assert frame["inherited_test_cross_entropy"].tolist() == [0.1, 0.3, 0.5, 0.5]
    assert frame["inherited_test_true_class_pct"].tolist() == [0.2, 0.4, 0.6, 0.6]
    assert frame["inherited_test_estimated_error_pct"].tolist() == [10.0, 30.0, 50.0, 50.0]
    more = rows.finish({2: (7.0, 8.0, 0.7, 0.8, 70.0)})
    assert more["inherited_test_pct"].tolist() == [2.0, 4.0, 8.0, 8.0]


def test_a_table_of_an_earlier_version_grows_and_gets_the_scores_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write(path, PLAN[:1])
    earlier = load_rows(path).drop(columns=list(INHERITED[2:]))
    earlier.to_csv(path, index=False)
    rows = write(path, PLAN[1:2])
    assert load_rows(path)["standalone_test_pct"].tolist() == [1 / 3] * 2
    assert load_rows(path)["inherited_test_cross_entropy"].isna().all()
    frame = rows.finish({0: (1.0, 2.0, 0.1, 0.2, 10.0), 1: (3.0, 4.0, 0.3, 0.4, 30.0)})
    assert frame["inherited_test_true_class_pct"].tolist() == [0.2, 0.4]
    assert frame["inherited_test_estimated_error_pct"].tolist() == [10.0, 30.0]
    assert load_rows(path).equals(frame)


def test_a_damaged_table_is_one_line(tmp_path: Path) -> None:
    for text in ("", "index,seed\n0,1\n", "not,a,table\n1,2\n"):
        (tmp_path / "rows.csv").write_text(text)
        with pytest.raises(UserError, match="is damaged") as error:
            load_rows(tmp_path / "rows.csv")
        assert "\n" not in str(error.value)
