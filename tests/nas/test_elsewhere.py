"""The command line's ways to another device: a bundle, its result, a host."""

import sys
from functools import partial
from pathlib import Path

import pytest

import nas
from hardware_profiles.profile import HardwareProfile
from nas import elsewhere
from nas.cli import main
from nas.profiling import plan_profile
from tests.nas.bundle_devices import run as run_bundle
from tests.nas.bundle_devices import ssh_host
from tests.nas.test_cli import TINY, fail

FEW = ("--epochs", "1", "--num-evaluations", "4", "--max-models", "2", "--searcher", "random")


def test_an_imported_profile_is_the_run_s_own(
    made_result: Path, tiny_profile: HardwareProfile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ("--run", str(tmp_path / "run"))
    main(["profile", *run, *TINY, "--import", str(made_result)])
    profile = HardwareProfile.load(tmp_path / "run" / "profile.json")
    main(["profile", *run])  # as it is remembered
    (path,) = (tmp_path / "run" / "devices").iterdir()
    assert HardwareProfile.load(path) == HardwareProfile.load(tmp_path / "run" / "profile.json") == profile
    tiny_profile.save(tmp_path / "other.json")
    message = fail(["profile", *run, "--hardware", str(tmp_path / "other.json")], capsys)
    assert "changed since stage 'profile'" in message
    main(["profile", *run, "--hardware", str(tmp_path / "other.json"), "--redo", "profile"])
    assert "changed since stage 'profile'" in fail(["profile", *run, "--import", str(made_result)], capsys)
    main(["profile", *run, "--import", str(made_result), "--redo", "profile"])
    assert HardwareProfile.load(tmp_path / "run" / "profile.json") == profile


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--bundle", "b", "--host", "pi"), "--bundle, --import and --host exclude each other; give one of them"),
        (("--import", "no.json"), "can't read 'no.json': No such file"),
        (("--bundle", "b", "--runtime", "openvino"), "a bundle measures onnxruntime, not openvino"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in fail(["profile", "--run", str(tmp_path / "run"), *TINY, *arguments], capsys)
    assert not any(tmp_path.iterdir())


def test_a_host_is_profiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elsewhere, "plan_profile", partial(plan_profile, num_fit=16, num_held_out=3))
    with ssh_host(tmp_path, monkeypatch) as host:
        options = ("--budget", "1", "--host", host, "--host-python", sys.executable)
        main(["profile", "--run", str(tmp_path / "run"), *TINY, *options])
    assert HardwareProfile.load(tmp_path / "run" / "profile.json").rows
    assert not any((tmp_path / "home").iterdir())


def test_a_front_is_verified_by_what_a_bundle_found(
    tiny_profile: HardwareProfile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_profile.save(tmp_path / "device.json")
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    main(["search", "--run", str(run), *TINY, *FEW, "--hardware", str(tmp_path / "device.json")])
    here = nas.load_results(run)
    assert "is verified already; --redo verify exports it anew" in fail(
        ["verify", str(run), "--bundle", str(bundle)], capsys
    )
    main(["verify", str(run), "--redo", "verify", "--bundle", str(bundle)])
    assert (
        "measured_latency_ms" not in nas.load_results(run) or nas.load_results(run)["measured_latency_ms"].isna().all()
    )
    status, text = run_bundle(bundle, "--budget", "0.5")
    assert status == 0, text
    result = str(bundle / "result.json")
    assert "give --import alone" in fail(["verify", str(run), "--redo", "verify", "--import", result], capsys)
    main(["verify", str(run), "--import", result])
    there = nas.load_results(run)
    both = here["measured_error_pct"].notna() & there["measured_error_pct"].notna()
    assert both.sum() >= 1
    for column in ("measured_error_pct", "measured_size_bytes", "agreement_pct"):
        assert here[both][column].tolist() == pytest.approx(there[both][column].tolist())
    assert (there[both]["measured_latency_ms"] > 0).all()
    assert (run / "report.html").exists()
    main(["verify", str(run)])  # is done, and says so by measuring nothing
    assert nas.load_results(run)["measured_latency_ms"].equals(there["measured_latency_ms"])


def test_a_front_is_verified_on_a_host(
    tiny_profile: HardwareProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_profile.save(tmp_path / "device.json")
    run = tmp_path / "run"
    main(["search", "--run", str(run), *TINY, *FEW, "--hardware", str(tmp_path / "device.json")])
    here = nas.load_results(run)
    with ssh_host(tmp_path, monkeypatch) as host:
        main(["verify", str(run), "--redo", "verify", "--host", host, "--host-python", sys.executable])
    there = nas.load_results(run)
    measured = there["measured_latency_ms"].dropna()
    assert set(measured) - set(here["measured_latency_ms"])
    shared = here.dropna(subset="measured_error_pct").index.intersection(measured.index)
    assert len(shared)
    assert list(there.loc[shared, "measured_error_pct"]) == list(here.loc[shared, "measured_error_pct"])
    assert not any((tmp_path / "home").iterdir())
