import optuna
import pytest
from sqlalchemy import Engine, event

from nas.errors import UserError
from nas.search import Constraint, Objective, Study
from nas.search.study import Row
from search_spaces.space import Choice
from tests.nas.search.problems import CHOICES, OBJECTIVES

GENOTYPE = {c.name: c.values[-1] for c in CHOICES}
SETTINGS = {"seed": 0, "hashes": {"space": "a", "data": "b"}}
LIMIT = Constraint(objective="latency_ms", op="<=", bound=2.5)


def _row(index=0, **changes):
    values = {"error_pct": 12.5, "latency_ms": 3.0}
    return Row(**{"index": index, "batch": 0, "genotype": GENOTYPE, "values": values} | changes)


def test_rows_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "new" / "study.db"
    rows = [
        _row(0, extras={"macs": 5.0}, predicted={"error_pct": 12.0}, predicted_std={"error_pct": 0.5}, seconds=1.5),
        _row(1, values={}, reason="error_pct is nan", host="elsewhere"),
    ]
    study = Study.open(path, CHOICES, OBJECTIVES, SETTINGS, constraints=[LIMIT])
    for row in rows:
        study.add(row)
    for again in (Study.open(path, CHOICES, OBJECTIVES, SETTINGS, constraints=[LIMIT]), Study.load(path)):
        assert again.rows() == rows
        assert (again.choices, again.objectives, again.constraints) == (CHOICES, OBJECTIVES, (LIMIT,))
        assert again.settings["seed"] == 0
    types = [type(value) for value in Study.load(path).rows()[0].genotype.values()]
    assert types == [type(value) for value in GENOTYPE.values()]


def test_genes_are_inserted_with_one_statement(tmp_path):
    choices = [Choice(name=f"gene.{index}", values=(0, 1)) for index in range(80)]
    study = Study.open(tmp_path / "study.db", choices, OBJECTIVES, SETTINGS)
    statements = []

    def listen(connection, cursor, statement, *rest):
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", listen)
    try:
        study.reserve(_row(genotype={c.name: 1 for c in choices}, values={}), owner={}, heartbeat="")
    finally:
        event.remove(Engine, "before_cursor_execute", listen)
    assert sum("trial_params" in statement for statement in statements) == 1
    assert study.running()[0].genotype == {c.name: 1 for c in choices}


def test_frame_has_genes_objectives_extras_and_predictions(tmp_path):
    study = Study.open(None, CHOICES, OBJECTIVES, SETTINGS)
    study.add(_row(0, extras={"macs": 5.0}, predicted={"error_pct": 12.0}, predicted_std={"error_pct": 0.5}))
    study.add(_row(1, values={}, reason="ValueError: no"))
    frame = study.frame()
    names = ["error_pct", "latency_ms", "macs", "predicted_error_pct", "predicted_std_error_pct"]
    assert list(frame) == ["index", "batch", "state", *GENOTYPE, *names, "seconds", "host", "reason"]
    assert frame["state"].tolist() == ["complete", "failed"]
    assert frame["error_pct"].isna().tolist() == [False, True]


def test_optuna_reads_the_study_without_conversion(tmp_path):
    study = Study.open(tmp_path / "study.db", CHOICES, OBJECTIVES, SETTINGS, constraints=[LIMIT])
    study.add(_row(0))
    study.add(_row(1, values={"error_pct": 20.0, "latency_ms": 2.0}))
    study.add(_row(2, values={}, reason="broken"))
    loaded = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert [t.state.name for t in loaded.trials] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert loaded.trials[0].params == GENOTYPE
    assert loaded.metric_names == ["error_pct", "latency_ms"]
    assert [t.number for t in loaded.best_trials] == [1]  # the other breaks the constraint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"seed": 1, "hashes": SETTINGS["hashes"]}}, "other settings: seed 0, now 1;"),
        ({"settings": {"seed": 0, "hashes": {"space": "a", "data": "c"}}}, 'hashes.data "b", now "c"'),
        ({"choices": CHOICES[:-1]}, "choices.mixer"),
        ({"choices": CHOICES[::-1]}, "the order of choices"),
        (
            {"objectives": (OBJECTIVES[0], Objective("latency_ms", maximize=True))},
            "maximize false, now true",
        ),
        ({"constraints": [LIMIT]}, "constraints"),
    ],
)
def test_study_of_another_search_is_refused_by_what_differs(tmp_path, change, message):
    path = tmp_path / "study.db"
    given = {"choices": CHOICES, "objectives": OBJECTIVES, "settings": SETTINGS}
    Study.open(path, **given).add(_row())
    with pytest.raises(UserError, match=message) as caught:
        Study.open(path, **given | change)
    assert "\n" not in str(caught.value)
    assert len(Study.load(path).rows()) == 1


def test_damaged_foreign_or_absent_study_is_one_line(tmp_path):
    path = tmp_path / "study.db"
    path.write_bytes(b"not a database at all" * 100)
    before = path.read_bytes()
    for act in (lambda: Study.open(path, CHOICES, OBJECTIVES, SETTINGS), lambda: Study.load(path)):
        with pytest.raises(UserError, match="study.db cannot be used .*not a database") as caught:
            act()
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    with pytest.raises(UserError, match="there is no study"):
        Study.load(tmp_path / "absent.db")
    other = tmp_path / "other.db"
    optuna.create_study(study_name="other", storage=f"sqlite:///{other}")
    with pytest.raises(UserError, match="holds no study of a search"):
        Study.load(other)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be used"):
        Study.open(tmp_path / "file" / "study.db", CHOICES, OBJECTIVES, SETTINGS)


def test_truncated_study_is_one_line(tmp_path):
    path = tmp_path / "study.db"
    Study.open(path, CHOICES, OBJECTIVES, SETTINGS).add(_row())
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(UserError, match="cannot be used"):
        Study.open(path, CHOICES, OBJECTIVES, SETTINGS).rows()


def test_journal_whose_last_line_was_torn_is_read_and_continued(tmp_path):
    path = tmp_path / "study.journal"
    Study.open(path, CHOICES, OBJECTIVES, SETTINGS).add(_row())
    with path.open("a") as file:
        file.write('{"op_code": 4, "worker_')
    assert len(Study.load(path).rows()) == 1
    Study.open(path, CHOICES, OBJECTIVES, SETTINGS).add(_row(1))
    assert [row.index for row in Study.load(path).rows()] == [0, 1]


def test_file_that_is_no_journal_is_one_line_and_stays(tmp_path):
    path = tmp_path / "notes.journal"
    path.write_text("monday: slept\ntuesday: slept")
    with pytest.raises(UserError, match=r"notes.journal cannot be used") as caught:
        Study.open(path, CHOICES, OBJECTIVES, SETTINGS)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "monday: slept\ntuesday: slept"


def test_studies_of_one_storage_are_told_apart_by_name(tmp_path):
    path = tmp_path / "team.journal"
    for name in ("phone", "board"):
        Study.open(path, CHOICES, OBJECTIVES, SETTINGS | {"name": name}, name=name)
    Study.open(path, CHOICES, OBJECTIVES, SETTINGS | {"name": "phone"}, name="phone").add(_row())
    assert [len(Study.load(path, name=name).rows()) for name in ("phone", "board")] == [1, 0]
    with pytest.raises(UserError, match="holds no study of a search"):
        Study.load(path, name="watch")


def test_settings_are_read_before_a_study_is_opened(tmp_path):
    path = tmp_path / "study.db"
    assert Study.settings_at(None) == Study.settings_at(path) == {}
    assert not path.exists()
    Study.open(path, CHOICES, OBJECTIVES, SETTINGS)
    assert Study.settings_at(path) == Study.load(path).settings
    assert Study.settings_at(path, name="phone") == {}
