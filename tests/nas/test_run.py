"""A run: what its options mean, and what is refused before anything is made."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hardware_profiles.profile import HardwareProfile
from nas.config import RunConfig
from nas.errors import UserError
from nas.results import load_results
from nas.run import Run
from nas.run_inputs import fitting_profile, train_options
from nas.search import Objective, Study
from nas.search.study import Row
from nas.supernet import Supernet
from nas.tables import describe_supernet
from tests.hardware_profiles.profiles import make_profile, make_space_profile
from tests.tiny_space import tiny

CONFIG = RunConfig(space="tests.tiny_space:tiny", data="tests.tiny_data:load", training={"seed": 3})


def save_profile(path: Path, **changes: object) -> HardwareProfile:
    """A profile of the tiny space."""
    profile = replace(
        make_profile(name="board", space="tiny"),
        **{"space_fingerprint": tiny().fingerprint, "num_threads": 1, "batch_size": 1, **changes},
    )
    profile.save(path)
    return profile


def test_a_named_profile_must_fit_space_threads_and_batch(tmp_path: Path) -> None:
    path = tmp_path / "board.json"
    profile = save_profile(path)
    config = replace(CONFIG, hardware=str(path))
    assert fitting_profile(config, tiny()) == profile
    with pytest.raises(UserError, match="was measured with --threads 1, not 2; use --threads 1"):
        fitting_profile(replace(config, threads=2), tiny())
    assert fitting_profile(replace(config, device="cpu"), tiny()) == profile
    with pytest.raises(UserError, match="was measured with --device CPU, not CUDA; leave --device away"):
        fitting_profile(replace(config, device="CUDA"), tiny())
    with pytest.raises(UserError, match="with other channels or classes"):
        fitting_profile(config, tiny(num_classes=10))


def test_a_profile_stage_copies_a_named_profile_once(tmp_path: Path) -> None:
    profile = save_profile(tmp_path / "board.json")
    run = Run(tmp_path / "run", replace(CONFIG, hardware=str(tmp_path / "board.json")))
    assert run.profile() == profile
    assert run.stages.is_done("profile")
    save_profile(tmp_path / "other.json", call_overhead_ms=0.5)
    other = Run(tmp_path / "run", replace(CONFIG, hardware=str(tmp_path / "other.json")))
    with pytest.raises(UserError, match="changed since stage 'profile': hardware was"):
        other.profile()
    other.redo("profile")
    assert other.profile().call_overhead_ms == 0.5
    assert HardwareProfile.load(tmp_path / "run" / "replaced" / "1" / "profile.json") == profile


def test_options_that_earlier_runs_lack_are_inputs_of_training_where_they_matter(tmp_path: Path) -> None:
    biased = replace(CONFIG, training={"seed": 3, "size_bias": 0.5})
    inputs = Run(tmp_path, CONFIG)._train_inputs()  # as in runs from before there was one
    assert Run(tmp_path, biased)._train_inputs() == inputs | {"training.size_bias": "0.5"}
    apart = replace(CONFIG, training={"seed": 3, "entanglement": "width"})
    assert Run(tmp_path, apart)._train_inputs() == inputs | {"training.entanglement": "width"}


def test_a_study_kept_elsewhere_is_found_and_never_set_aside(tmp_path: Path) -> None:
    where = str(tmp_path / "shared" / "team.journal")
    run = Run(tmp_path / "mine", replace(CONFIG, study=where))
    run.folder.mkdir()
    run.config.save(run.folder / "config.yaml")
    objectives = (Objective("error_pct"), Objective("latency_ms"))
    for name, num in (("mine", 2), ("other", 1)):
        study = Study.open(where, tiny().choices, objectives, {"seed": 0}, name=name)
        for index in range(num):
            genotype = tiny().smallest().genotype
            study.add(Row(index=index, batch=0, genotype=genotype, values={"error_pct": 1.0, "latency_ms": 2.0}))
    assert len(load_results(run.folder)) == 2
    with pytest.raises(UserError, match="others may use the study at .*team.journal; use a --run folder of another"):
        run.redo("search")
    assert len(load_results(run.folder)) == 2


def test_join_needs_a_search_that_has_begun(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no finished profile yet; start `nas search`"):
        Run(tmp_path / "run", CONFIG).join()


def test_the_options_kept_in_the_folder_are_whole(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", CONFIG)
    assert run.config.epochs == train_options(CONFIG).num_epochs
    assert run.config.training["seed"] == 3
    assert "learning_rate" in run.config.training
    assert not (tmp_path / "run").exists()


def test_a_damaged_summary_of_training_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "supernet.json").write_text('{"accuracy": 3}')
    with pytest.raises(UserError, match="supernet.json is missing or damaged; --redo train"):
        describe_supernet(tmp_path)


def test_a_front_is_verified_only_where_its_target_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = tiny(num_channels=1, num_classes=4)
    profile = make_space_profile(space)
    profile.save(tmp_path / "board.json")
    monkeypatch.setattr(Run, "train", train_nothing)
    monkeypatch.setattr("nas.verify.TIMING_S_PER_MODEL", 0.02)
    run = Run(tmp_path / "run", replace(CONFIG, hardware=str(tmp_path / "board.json"), num_evaluations=4, max_models=2))
    for _ in range(2):  # the second time nothing is left to do
        frame = run.verify()
        members = frame[frame["on_front"]]
        assert (members["front_reason"] == "not verified on Test CPU with onnxruntime 1.0").all()
        assert frame["measured_latency_ms"].isna().all()
        assert not frame["verified"].any()
    assert 1 <= len(list(run.models_path.glob("*/model.onnx"))) <= 2
    monkeypatch.setattr("nas.target.describe_device", lambda: profile.device)
    frame = run.verify()
    assert frame[frame["on_front"]]["measured_latency_ms"].notna().all()
    assert not frame["front_reason"].str.contains("not verified").any()
    monkeypatch.undo()
    monkeypatch.setattr(Run, "train", train_nothing)
    assert run.verify()["verified"].any()  # what was measured stays


def train_nothing(run: Run) -> Supernet:
    supernet, path = Supernet(run.space), run.folder / "supernet.safetensors"
    if path.exists():
        supernet.load(path)
    else:
        torch.manual_seed(0)
        supernet = Supernet(run.space)
        supernet.save(path)
    return supernet
