"""A profile made where this project isn't installed: by a script with numpy and onnxruntime, interrupted, altered."""

import json
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hardware_profiles.device import describe_device
from hardware_profiles.errors import ProfileError
from hardware_profiles.sealed import RESULT, read_sealed, write_sealed
from nas.errors import UserError
from nas.profiling import ProfilePlan
from nas.profiling.bundle import import_profile, write_profile_bundle
from nas.profiling.forms import unmeasured_convolutions
from tests.nas.bundle_devices import make_environment, run, start
from tests.tiny_space import tiny

Alter = Callable[[Callable[[str], str]], Path]


def test_a_device_with_numpy_and_onnxruntime_alone_makes_a_profile(made_result: Path, bundle_plan: ProfilePlan) -> None:
    profile = import_profile(made_result, tiny())
    assert {(r.key, r.precision) for r in profile.rows} == {(r.key, r.precision) for r in bundle_plan.rows}
    assert sum(row.measured for row in profile.rows) > 8
    assert all(row.latency_ms >= 0 for row in profile.rows)
    assert {n.blocks for n in profile.networks} <= {n.blocks for n in bundle_plan.networks}
    assert (profile.device, profile.space_fingerprint) == (describe_device(), tiny().fingerprint)
    assert profile.weight_bits in (7, 8)
    assert profile.convolutions == bundle_plan.convolutions == unmeasured_convolutions(tiny())
    assert import_profile(made_result, tiny()) == profile


def test_a_virtual_environment_of_two_packages_is_enough(
    fresh_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    status, text = run(fresh_bundle, "--budget", "1", python=make_environment(tmp_path_factory.mktemp("venv")))
    assert status == 0, text
    assert import_profile(fresh_bundle / "result.json", tiny()).rows


def wait_for_rounds(bundle: Path, count: int) -> None:
    journal, end_s = bundle / "rounds.jsonl", time.monotonic() + 60
    while not journal.exists() or journal.read_text().count('"round"') < count:
        assert time.monotonic() < end_s
        time.sleep(0.02)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_continues_with_its_rounds(fresh_bundle: Path, sent: signal.Signals) -> None:
    process = start(fresh_bundle, "--budget", "1000")
    wait_for_rounds(fresh_bundle, 2)
    process.send_signal(sent)
    _, text = process.communicate(timeout=60)
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert text.endswith("run.py: interrupted; the same command continues with what was measured\n")
    journal = fresh_bundle / "rounds.jsonl"
    whole = journal.read_text().splitlines()
    kept = whole if journal.read_text().endswith("\n") else whole[:-1]
    journal.write_text("\n".join(kept) + '\n{"round":[0.001,0.00')  # as a power cut would leave it
    status, text = run(fresh_bundle, "--budget", "0.1")
    assert status == 0, text
    found = read_sealed(fresh_bundle / "result.json", RESULT, way_out="")["rounds"]
    assert found[: len(kept) - 1] == [json.loads(line)["round"] for line in kept[1:]]
    assert len(found) >= 5


def test_a_run_with_other_options_does_not_continue(fresh_bundle: Path) -> None:
    process = start(fresh_bundle, "--budget", "1000")
    wait_for_rounds(fresh_bundle, 1)
    status, text = run(fresh_bundle)
    assert (status, text) == (2, "run.py: another run.py is at work in this folder; wait for it, or end it\n")
    process.kill()
    process.communicate()
    status, text = run(fresh_bundle, "--threads", "2")
    assert status == 2
    assert "rounds.jsonl was begun with another num_threads; run it as before, or remove rounds.jsonl" in text


def test_a_damaged_bundle_is_not_measured(fresh_bundle: Path) -> None:
    model = next((fresh_bundle / "models").iterdir())
    model.write_bytes(model.read_bytes()[:-1])
    assert run(fresh_bundle) == (2, f"run.py: models/{model.name} is missing or damaged; copy the bundle again\n")


def test_a_truncated_result_is_refused(altered_result: Alter) -> None:
    with pytest.raises(ProfileError, match="is truncated or not JSON; copy result.json from the device again"):
        import_profile(altered_result(lambda text: text[:-20]), tiny())


def test_an_altered_result_is_refused(altered_result: Alter) -> None:
    changed = altered_result(lambda text: text.replace('"weight_bits":', '"weight_bits":1', 1))
    with pytest.raises(ProfileError, match="was altered since it was written; copy result.json"):
        import_profile(changed, tiny())


def test_another_format_or_version_is_refused(altered_result: Alter, made_bundle: Path) -> None:
    with pytest.raises(ProfileError, match="has format version 9, this release reads 3"):
        import_profile(altered_result(lambda text: text.replace('"version":3', '"version":9', 1)), tiny())
    with pytest.raises(ProfileError, match="holds no hybridnas measurements"):
        import_profile(made_bundle / "manifest.json", tiny())


def test_a_result_of_another_space_is_refused(made_result: Path) -> None:
    with pytest.raises(UserError, match="is of space 'tiny'.*give the --space and --data"):
        import_profile(made_result, tiny(num_classes=7))


def resealed(path: Path, folder: Path, **changes: object) -> Path:
    """A result with other content and the right checksum."""
    write_sealed(folder / "resealed.json", RESULT, {**read_sealed(path, RESULT, way_out=""), **changes})
    return folder / "resealed.json"


def test_too_few_rounds_and_another_bundle_are_refused(made_result: Path, tmp_path: Path) -> None:
    rounds = read_sealed(made_result, RESULT, way_out="")["rounds"]
    with pytest.raises(UserError, match="has 2 rounds, fewer than 5; copy result.json"):
        import_profile(resealed(made_result, tmp_path, rounds=rounds[:2]), tiny())
    with pytest.raises(UserError, match="is of another bundle than it says"):
        import_profile(resealed(made_result, tmp_path, bundle="0" * 64), tiny())


def test_a_precision_refused_over_there_is_left_out(made_result: Path, tmp_path: Path) -> None:
    profile = import_profile(resealed(made_result, tmp_path, refused={"w4": "no MatMulNBits"}), tiny())
    assert "w4" not in profile.precisions


def test_a_folder_with_something_else_is_left_alone(
    bundle_plan: ProfilePlan, fresh_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="isn't empty and holds no bundle; give another folder"):
        write_profile_bundle(bundle_plan, tmp_path / "other")
    write_profile_bundle(bundle_plan, fresh_bundle, budget_s=2.0)  # the same one
    with pytest.raises(UserError, match="holds another bundle; nothing was overwritten"):
        write_profile_bundle(replace(bundle_plan, batch_size=2), fresh_bundle)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "tiny"]
