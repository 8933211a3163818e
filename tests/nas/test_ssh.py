"""A bundle measured through ssh on a host of this user's own, on loopback."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hardware_profiles.sealed import RESULT, read_sealed
from nas.errors import UserError
from nas.profiling import plan_profile
from nas.profiling.bundle import import_profile, write_profile_bundle
from nas.ssh import measured_on_host
from tests.nas.bundle_devices import ssh_host
from tests.tiny_space import tiny

FLAKY = """#!/bin/sh
{python} "$@" --budget 1000 & started=$!
until grep -q '"round"' rounds.jsonl 2>/dev/null; do sleep 0.1; done
kill -9 $started
exit 255
"""
"""Python on a host whose power fails after the first round: ssh ends with 255 when the connection is gone."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ssh") / "bundle"
    write_profile_bundle(plan_profile(tiny(), ("fp32",), num_fit=4, num_held_out=3), folder, budget_s=1.0)
    return folder


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with ssh_host(tmp_path, monkeypatch) as name:
        yield name


def test_a_host_measures_and_nothing_stays_there(bundle: Path, host: str, tmp_path: Path) -> None:
    with measured_on_host(bundle, host, tmp_path / "back", python=sys.executable) as result:
        assert import_profile(result, tiny()).precisions == ("fp32",)
        assert [path.name.startswith("hybridnas-") for path in (tmp_path / "home").iterdir()] == [True]
    assert not list((tmp_path / "home").iterdir())


def test_a_lost_connection_is_one_line_and_the_next_call_continues(bundle: Path, host: str, tmp_path: Path) -> None:
    (tmp_path / "flaky").write_text(FLAKY.format(python=sys.executable))
    (tmp_path / "flaky").chmod(0o755)
    with (
        pytest.raises(UserError, match="device: connection failed or was lost; the same command continues"),
        measured_on_host(bundle, host, tmp_path / "back", python=str(tmp_path / "flaky")),
    ):
        pass
    (journal,) = (tmp_path / "home").glob("*/rounds.jsonl")
    before = journal.read_text().splitlines()[1]
    with measured_on_host(bundle, host, tmp_path / "back", python=sys.executable) as result:
        rounds = read_sealed(result, RESULT, way_out="")["rounds"]
    assert json.loads(before)["round"] == rounds[0]
    assert len(rounds) >= 5


def test_a_host_without_that_python_is_told(bundle: Path, host: str, tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="'python9' isn't there on device; say with --host-python"),
        measured_on_host(bundle, host, tmp_path / "back", python="python9"),
    ):
        pass


def test_an_unknown_host_and_an_option_in_its_place_are_told(bundle: Path, host: str, tmp_path: Path) -> None:
    for name, message in (("nobody@nowhere.invalid", "connection failed"), ("-oProxyCommand=x", "is no host")):
        with pytest.raises(UserError, match=message), measured_on_host(bundle, name, tmp_path / "back"):
            pass
