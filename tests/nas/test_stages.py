"""Stamps: what a stage used, what is refused, what is redone with what."""

import subprocess
import sys
from pathlib import Path

import pytest

from nas.errors import UserError
from nas.stages import Stages, hash_file, made_from, outputs

INPUTS = {"data set": "tiny 12", "search space": "tiny 34"}


def finish(stages: Stages, stage: str, *, extent: int = 0) -> None:
    """Do a stage: stamp and outputs."""
    stages.start(stage, INPUTS, extent=extent)
    for name in outputs(stage):
        (stages.folder / name).write_text(stage)
    stages.finish(stage, seconds=1.0)


def test_a_finished_stage_is_done_up_to_its_extent(tmp_path: Path) -> None:
    finish(Stages(tmp_path), "train", extent=5)
    stages = Stages(tmp_path)
    stages.check("train", INPUTS)
    assert stages.is_done("train", extent=5)
    assert not stages.is_done("train", extent=6)
    assert stages.seconds("train") == 1.0


def test_a_stage_that_ended_early_is_continued_by_asking_for_the_same(tmp_path: Path) -> None:
    stages = Stages(tmp_path)
    finish(stages, "search", extent=50)
    stages.shorten("search", extent=20)
    assert Stages(tmp_path).is_done("search", extent=20)
    assert not Stages(tmp_path).is_done("search", extent=50)


def test_a_stage_without_its_outputs_is_not_done(tmp_path: Path) -> None:
    stages = Stages(tmp_path)
    finish(stages, "profile")
    (tmp_path / "profile.json").unlink()
    assert not stages.is_done("profile")


def test_a_stage_is_one_process_at_a_time_until_it_ends_or_is_killed(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from nas.stages import Stages
with Stages(Path({str(tmp_path)!r})).alone("fidelity"):
    print("at it", flush=True)
    time.sleep(60)
"""
    stages = Stages(tmp_path)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "at it\n"
        with pytest.raises(UserError, match="another process is at stage 'fidelity' of .*; wait for it, or use"):
            stages.alone("fidelity").__enter__()
        with stages.alone("train"):  # another stage
            pass
        other.kill()
    with stages.alone("fidelity"):
        pass


def test_several_processes_may_be_at_one_search(tmp_path: Path) -> None:
    with Stages(tmp_path).alone("search-largest"), Stages(tmp_path).alone("search-largest"):
        assert not list(tmp_path.iterdir())


def test_other_inputs_are_refused_by_name(tmp_path: Path) -> None:
    stages = Stages(tmp_path)
    finish(stages, "search")
    with pytest.raises(UserError, match="changed since stage 'search': data set was tiny 12, now tiny 13; use another"):
        stages.check("search", INPUTS | {"data set": "tiny 13"})
    with pytest.raises(UserError, match="profile was absent, now 5"):
        stages.check("search", INPUTS | {"profile": "5"})


def test_an_interrupted_stage_is_claimed_for_its_inputs(tmp_path: Path) -> None:
    Stages(tmp_path).start("train", INPUTS)
    stages = Stages(tmp_path)
    assert not stages.is_done("train")
    with pytest.raises(UserError, match="--redo train"):
        stages.check("train", {})


def test_outputs_without_a_stamp_are_refused(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("")
    with pytest.raises(UserError, match="study.db has no stamp"):
        Stages(tmp_path).check("search", INPUTS)


def test_redo_moves_a_stage_and_what_was_made_from_it_aside(tmp_path: Path) -> None:
    stages = Stages(tmp_path)
    for stage in ("profile", "train", "search", "verify", "search-largest"):
        finish(stages, stage)
    aside = stages.redo("train")
    assert aside is not None
    assert {path.name for path in aside.iterdir()} == {
        name for stage in ("train", "search", "verify", "search-largest") for name in outputs(stage)
    }
    assert Stages(tmp_path).is_done("profile")
    assert not Stages(tmp_path).is_done("search")
    Stages(tmp_path).check("train", {})
    assert Stages(tmp_path).redo("verify") is None


def test_stages_of_one_architecture_have_files_of_their_own() -> None:
    assert outputs("search-largest") == ("study-largest.db",)
    assert outputs("verify-largest")[:2] == ("front-largest", "verified-largest.json")
    assert outputs("finetune-largest") == ("finetuned-largest", "finetuned-largest.json")
    assert made_from("train", ["fidelity", "finetune", "profile"]) == ["fidelity", "finetune"]
    assert made_from("search-largest", ["verify", "verify-largest", "finetune-largest"]) == [
        "verify-largest",
        "finetune-largest",
    ]
    assert made_from("verify", ["search", "finetune", "finetune-largest"]) == ["finetune"]
    assert made_from("train", ["fidelity", "profile"]) == ["fidelity"]
    assert made_from("search-largest", ["verify", "verify-largest", "sensitivity"]) == ["verify-largest"]


def test_a_sensitivity_goes_with_every_stage_it_may_be_made_from() -> None:
    for stage in ("profile", "train", "search"):
        assert "sensitivity" in made_from(stage, ["verify", "sensitivity", "verify-largest"])
    assert made_from("verify", ["sensitivity"]) == []


def test_a_damaged_file_of_stamps_is_one_line(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"train": {"inputs": {}}}', '{"train": 3}'):
        (tmp_path / "stages.json").write_text(text)
        with pytest.raises(UserError, match="stages.json is damaged"):
            Stages(tmp_path)


def test_a_hash_changes_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = hash_file(tmp_path / "a")
    (tmp_path / "a").write_text("2")
    assert len(first) == 16
    assert hash_file(tmp_path / "a") != first
