"""A searched and verified run whose front is finetuned, through the command line."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import nas
from hardware_profiles.profile import HardwareProfile
from hardware_profiles.runtimes import get_runtime
from nas.cli import main
from nas.data import ImageData
from nas.errors import UserError
from nas.evaluation import accuracy_pct
from nas.export import FILES
from nas.finetuning import front as module
from nas.finetuning.front import finetune_front
from nas.finetuning.options import FinetuneOptions
from nas.results import FINETUNED, MEASURED, best_values, load_finetuned, select
from nas.supernet import Supernet
from nas.training import TrainOptions
from search_spaces.precision import Candidate
from tests.tiny_space import tiny

OPTIONS = """
space: tests.tiny_space:tiny
data: tests.tiny_data:load
epochs: 2
training: {batch_size: 48, num_watched: 0}
num-evaluations: 6
max_models: 3
num_validation: 120
"""


@pytest.fixture(scope="module", autouse=True)
def short_timings() -> Iterator[None]:
    """No test here is about latencies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nas.verify.TIMING_S_PER_MODEL", 0.02)
        yield


@pytest.fixture(scope="module")
def verified(tiny_profile: HardwareProfile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never finetuned."""
    folder = tmp_path_factory.mktemp("verified")
    tiny_profile.save(folder / "profile.json")
    (folder / "options.yaml").write_text(OPTIONS)
    run, config = folder / "run", str(folder / "options.yaml")
    main(["search", "--run", str(run), "--config", config, "--hardware", str(folder / "profile.json")])
    return run


@pytest.fixture(scope="module")
def finetuned(verified: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it whose whole front was finetuned."""
    run = shutil.copytree(verified, tmp_path_factory.mktemp("finetuned") / "run")
    main(["finetune", str(run), "--all", "--epochs", "2"])
    return run


@pytest.fixture
def run(verified: Path, tmp_path: Path) -> Path:
    """Another copy, to finetune in a test."""
    return shutil.copytree(verified, tmp_path / "run")


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def fail(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a mistaken command ends with."""
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("nas: "))
    return line


def test_results_show_the_front_before_and_after(verified: Path, finetuned: Path) -> None:
    before, after = nas.load_results(verified), nas.load_results(finetuned)
    pd.testing.assert_frame_equal(before.drop(columns=[*FINETUNED]), after.drop(columns=[*FINETUNED]))
    assert before[list(FINETUNED)].isna().all(axis=None)
    assert after.loc[after["on_front"], list(FINETUNED)].notna().all(axis=None)
    assert after.loc[~after["on_front"], list(FINETUNED)].isna().all(axis=None)
    members = after[after["on_front"]]
    assert members["finetuned_error_pct"].mean() < members["measured_error_pct"].mean()
    assert (members["finetuned_size_bytes"] - members["measured_size_bytes"]).abs().max() < 500
    assert best_values(members, "error_pct").tolist() == members["finetuned_error_pct"].tolist()
    table = pd.read_csv(finetuned / "pareto.csv")
    assert {*MEASURED, *FINETUNED} <= set(table)
    assert "error (%)<small>finetuned</small>" in (finetuned / "report.html").read_text()
    assert "<small>finetuned</small>" not in (verified / "report.html").read_text()


def test_the_files_of_the_front_are_left_alone(verified: Path, finetuned: Path) -> None:
    assert content(finetuned / "front") == content(verified / "front")
    for name in ("study.db", "verified.json", "supernet.safetensors"):
        assert (finetuned / name).read_bytes() == (verified / name).read_bytes()


@torch.no_grad()
def test_finetuned_models_are_whole_and_as_accurate_as_measured(finetuned: Path, tiny_data: ImageData) -> None:
    rows = {row["index"]: row for row in (load_finetuned(finetuned) or {})["rows"]}
    assert {path.name for path in (finetuned / "finetuned").iterdir()} == {str(index) for index in rows}
    for index, row in rows.items():
        folder, before = finetuned / "finetuned" / str(index), finetuned / "front" / str(index)
        assert {path.name for path in folder.iterdir()} == set(FILES)
        about, source = (json.loads((path / "architecture.json").read_text()) for path in (folder, before))
        assert Candidate.from_json(about) == Candidate.from_json(source)
        assert (about["finetuned"]["epochs"], source["finetuned"]) == (2, None)
        assert row["finetuned_agreement_pct"] >= 98
        error_pct = 100 - accuracy_pct(nas.load_model(folder), tiny_data.validation, tiny_data)
        assert row["finetuned_error_pct"] == pytest.approx(error_pct, abs=2)
        assert row["repeated_latency_ms"] > 0


def test_export_copies_the_finetuned_model(
    finetuned: Path, verified: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run, source in ((finetuned, "finetuned"), (verified, "front")):
        main(["export", str(run), "--select", "knee", "--output", str(tmp_path / source)])
        folder = Path(capsys.readouterr().out.strip())
        assert content(folder) == content(run / source / folder.name)


def test_finetuning_again_trains_nothing_and_prints_the_same(
    finetuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finetuned / "finetuned").rglob("*")}
    stamp = (finetuned / "finetuned.json").read_bytes()
    main(["finetune", str(finetuned), "knee", "--epochs", "2"])
    assert {path: path.stat().st_mtime_ns for path in (finetuned / "finetuned").rglob("*")} == before
    assert (finetuned / "finetuned.json").read_bytes() == stamp
    printed = capsys.readouterr().out
    assert "finetuned" in printed
    assert f"finetuned models: {finetuned / 'finetuned'}" in printed


def test_other_options_are_refused_until_redone(
    verified: Path, finetuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finetuned, tmp_path / "run")
    before, chosen = content(run / "finetuned"), select(nas.load_results(verified), "knee")
    message = fail(["finetune", str(run), "knee", "--epochs", "1"], capsys)
    assert "changed since stage 'finetune': finetuning.num_epochs was 2, now 1" in message
    assert "--redo finetune" in message
    main(["finetune", str(run), "knee", "--epochs", "1", "--redo", "finetune"])
    assert content(run / "replaced" / "1" / "finetuned") == before
    assert [row["index"] for row in (load_finetuned(run) or {})["rows"]] == chosen


def test_a_killed_command_continues_with_the_models_that_are_missing(
    run: Path, finetuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    indices = [row["index"] for row in (load_finetuned(finetuned) or {})["rows"]]
    if len(indices) < 2:
        pytest.fail("the front has one model; this test needs two")

    def killed(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_measure", killed)
        with pytest.raises(SystemExit, match="130"):
            main(["finetune", str(run), str(indices[0]), "--epochs", "2"])
    first = content(run / "finetuned" / str(indices[0]))
    assert not (run / "finetuned.json").exists()
    main(["finetune", str(run), "--all", "--epochs", "2"])
    assert content(run / "finetuned" / str(indices[0])) == first
    for index in indices:
        weights = Path("finetuned") / str(index) / "weights.safetensors"
        assert (run / weights).read_bytes() == (finetuned / weights).read_bytes()
    assert [row["index"] for row in (load_finetuned(run) or {})["rows"]] == indices


def test_a_search_finetunes_its_front_when_asked(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["search", "--run", str(run), "--finetune-epochs", "1"])
    members = nas.load_results(run).query("on_front")
    assert members["finetuned_error_pct"].notna().all()
    assert "finetuned" in capsys.readouterr().out
    assert "finetune_epochs: 1" in (run / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["99"], "model 99 is not on the front; choose of "),
        (["nsga"], "cannot select 'nsga'; say knee, all, a limit such as latency_ms<=2, or one of"),
        ([], "name models of the front, such as knee or 12, or give --all"),
        (["knee", "--all"], "name models of the front, such as knee or 12, or give --all"),
        (["knee", "--epochs", "-1"], "epochs is -1; it must be 1 or more"),
        (["knee", "--learning-rate", "nan"], "learning_rate is nan; it must be above 0"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    arguments: list[str], message: str, verified: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(verified)
    assert message in fail(["finetune", str(verified), *arguments], capsys)
    assert content(verified) == before


def test_runs_without_a_front_are_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = fail(["finetune", str(tmp_path / "nowhere"), "--all"], capsys)
    assert "nowhere' is no run of `nas search`; give the folder of one" in message
    (run / "verified.json").unlink()
    assert "has no verified front yet; run `nas verify` on it first" in fail(["finetune", str(run), "--all"], capsys)


def test_a_network_that_is_another_than_its_number_says_is_refused(
    finetuned: Path, tiny_data: ImageData, tiny_profile: HardwareProfile, tmp_path: Path
) -> None:
    run = shutil.copytree(finetuned, tmp_path / "run")
    index, *_ = (load_finetuned(run) or {})["rows"]
    path = run / "finetuned" / str(index["index"]) / "architecture.json"
    about = json.loads(path.read_text())
    about["precisions"] = {} if about["precisions"] else {"stem": "int8"}
    path.write_text(json.dumps(about))
    with pytest.raises(UserError, match="is another network than model .* is now; --redo finetune"):
        finetune_front(
            Supernet(tiny()),
            tiny_data,
            get_runtime("onnxruntime"),
            tiny_profile,
            run,
            [index["index"]],
            recipe=TrainOptions(batch_size=48),
            options=FinetuneOptions(),
        )


def test_damaged_results_are_one_line(run: Path) -> None:
    for damage in ("{", "[]", '{"rows": [{"index": null}]}'):
        (run / "finetuned.json").write_text(damage)
        with pytest.raises(UserError, match="finetuned.json' is damaged .* --redo finetune"):
            nas.load_results(run)
