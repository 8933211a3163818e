"""Reservations: whose counts, when they are taken back, and that a row is written once."""

from pathlib import Path

import psutil
import pytest

from nas.search import Study
from nas.search.reservations import Owner, Reservations
from nas.search.study import Row
from tests.nas.search.problems import CHOICES, OBJECTIVES

GENOTYPES = [{c.name: c.values[i] for c in CHOICES} for i in (0, -1)]
ELSEWHERE = Owner(host="elsewhere", pid=1, started=0.0)


def row(index: int, **changes: object) -> Row:
    return Row(**{"index": index, "batch": 0, "genotype": GENOTYPES[index], **changes})


def measured(index: int) -> Row:
    return row(index, values={"error_pct": 1.0, "latency_ms": 2.0})


@pytest.fixture(params=["study.db", "study.journal"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / request.param


def opened(path: Path) -> Study:
    return Study.open(path, CHOICES, OBJECTIVES, {"seed": 0})


def test_a_candidate_is_reserved_once(path: Path) -> None:
    with Reservations(opened(path)) as mine, Reservations(opened(path), owner=ELSEWHERE) as theirs:
        first = mine.reserve(row(0))
        assert first is not None
        assert theirs.reserve(row(0)) is None
        assert theirs.reserve(row(1)) is not None
        assert mine.finish(first, measured(0))
        assert theirs.reserve(row(0)) is None
    study = opened(path)
    assert [r.index for r in study.rows()] == [0]
    assert study.running() == []  # leaving frees what was not finished


def test_a_silent_process_loses_its_candidate_and_can_not_write_it(path: Path) -> None:
    now_s = 0.0
    slow = Reservations(opened(path), owner=ELSEWHERE)
    id = slow.reserve(row(0))
    assert id is not None
    with Reservations(opened(path), grace_s=60.0, clock=lambda: now_s) as other:
        assert [trial.index for trial in other.live()] == [0]
        now_s = 59.0
        opened(path).beat(id, "another")
        assert [trial.index for trial in other.live()] == [0]
        now_s = 100.0
        assert [trial.index for trial in other.live()] == [0]
        now_s = 120.0
        assert other.live() == []
        again = other.reserve(row(0))
        assert again is not None
        assert not slow.finish(id, measured(0))
        assert other.finish(again, row(0, reason="no memory"))
    assert [r.reason for r in opened(path).rows()] == ["no memory"]


def test_a_process_that_ended_here_loses_its_candidates_at_once(path: Path) -> None:
    here = Owner.here()
    assert not here.has_ended()
    unused = max(psutil.pids()) + 1000
    for ended in (Owner(host=here.host, pid=unused, started=0.0), Owner(host=here.host, pid=here.pid, started=1.0)):
        Reservations(opened(path), owner=ended).reserve(row(0))
        with Reservations(opened(path)) as mine:
            assert mine.live() == []


def test_a_failure_given_up_while_it_was_written_is_no_row(path: Path) -> None:
    study = opened(path)
    id = study.reserve(row(0), owner=ELSEWHERE.to_json(), heartbeat="1")
    study._storage.set_trial_user_attr(id, "reason", "no memory")  # as far as the owner came
    opened(path).give_up(id, "no heartbeat")
    assert study.rows() == []
