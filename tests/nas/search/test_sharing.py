"""One study, several processes: on SQLite, a journal and PostgreSQL; killed ones included."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nas.search.study import Study
from tests.nas.search.sharing import (
    NUM_EVALUATIONS,
    check_like_undisturbed,
    kill_at_random,
    logged,
    start,
    wait_for_lines,
)

SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """URL of a server that this module starts, on a socket of its own."""
    if not SERVERS:
        pytest.skip("no PostgreSQL server in /usr/lib/postgresql; install Debian's package postgresql")
    binaries = SERVERS[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    user = "postgres" if os.getuid() == 0 else None  # the server refuses to run as root
    if user is not None:
        shutil.chown(folder, user)
    data, quiet = folder / "data", {"stdout": subprocess.DEVNULL, "user": user, "cwd": folder}
    subprocess.run([binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N"], check=True, **quiet)
    options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
    control = [binaries / "pg_ctl", "-D", data, "-w", "-l", folder / "log"]
    subprocess.run([*control, "-o", options, "start"], check=True, **quiet)
    yield f"postgresql://postgres@/postgres?host={folder}"
    subprocess.run([*control, "-m", "immediate", "stop"], check=True, **quiet)
    shutil.rmtree(folder)


@pytest.fixture(params=["study.db", "study.journal", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where two processes share a study; one server holds one study for all tests, emptied before each."""
    if request.param != "postgresql":
        return str(tmp_path / request.param)
    url = request.getfixturevalue("postgresql")
    folder = url.partition("host=")[2]
    statement = "drop schema public cascade; create schema public"
    binary = SERVERS[-1].parent / "psql"
    subprocess.run([binary, "-q", "-h", folder, "-U", "postgres", "-c", statement], check=True, capture_output=True)
    return url


def test_two_processes_share_the_work_without_duplicates(storage: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    meet = multiprocessing.get_context("fork").Barrier(2)
    processes = [start(storage, log, meet=meet) for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(logged(log)) == NUM_EVALUATIONS
    assert {pid for pid, _ in logged(log)} == {process.pid for process in processes}
    check_like_undisturbed(storage)


def test_what_a_killed_process_had_reserved_is_done_by_the_other(storage: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    meet = multiprocessing.get_context("fork").Barrier(2)
    stuck = start(storage, tmp_path / "stuck", seconds=1000.0, meet=meet)
    working = start(storage, log, seconds=0.01, meet=meet)
    wait_for_lines(log, 5)
    reserved = Study.load(storage).running()
    assert stuck.pid in {trial.owner["pid"] for trial in reserved}
    os.kill(stuck.pid or 0, signal.SIGKILL)
    stuck.join()
    working.join()
    assert working.exitcode == 0
    assert len(logged(log)) == NUM_EVALUATIONS
    check_like_undisturbed(storage)


def test_search_killed_at_random_moments_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    study, log = tmp_path / "study.db", tmp_path / "log"
    killed = kill_at_random(study, log, num_kills=4, num=NUM_EVALUATIONS, rng=np.random.default_rng(0))
    assert killed > 0
    check_like_undisturbed(study)
    repeated = sum(count - 1 for count in Counter(genotype for _, genotype in logged(log)).values())
    assert repeated <= killed  # at most the one that was being written when the process was killed
