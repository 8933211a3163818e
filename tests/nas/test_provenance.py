"""What made a result: its command and commit."""

import subprocess
import sys
from pathlib import Path

import pytest

import nas
from nas.provenance import command, commit


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a file of code and one of results, from which `nas` seems to run."""
    for name in ("nas/__init__.py", "results/table.csv"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("old")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    monkeypatch.setattr(nas, "__file__", str(tmp_path / "nas" / "__init__.py"))
    return tmp_path


def test_changed_code_marks_the_commit_and_changed_results_do_not(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    assert commit.__wrapped__() == head
    (checkout / "results" / "table.csv").write_text("new")
    (checkout / "untracked").write_text("new")
    assert commit.__wrapped__() == head
    (checkout / "nas" / "__init__.py").write_text("new")
    assert commit.__wrapped__() == f"{head}-dirty"
    git(checkout, "add", ".")
    assert commit.__wrapped__() == f"{head}-dirty"


def test_an_installed_package_and_an_empty_repository_have_no_commit(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("installed") / "nas"
    elsewhere.mkdir()
    monkeypatch.setattr(nas, "__file__", str(elsewhere / "__init__.py"))
    assert commit.__wrapped__() is None
    git(elsewhere.parent, "init", "-q")
    assert commit.__wrapped__() is None


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("nas/__main__.py", "python -m nas fidelity --run 'a b'"),
        ("tests/benchmarks/million.py", "python -m tests.benchmarks.million fidelity --run 'a b'"),
        (".venv/bin/nas", "nas fidelity --run 'a b'"),
        ("../mine.py", "mine.py fidelity --run 'a b'"),
    ],
)
def test_a_command_is_as_it_is_typed(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, program: str, expected: str
) -> None:
    monkeypatch.setattr(sys, "argv", [str(checkout / program), "fidelity", "--run", "a b"])
    assert command() == expected
