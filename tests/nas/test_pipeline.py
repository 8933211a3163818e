"""One whole pipeline through the command line, killed in training and again in the search."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import nas
from hardware_profiles.profile import HardwareProfile
from nas.cli import main
from nas.config import load_options
from nas.data import ImageData
from nas.evaluation import normalize
from nas.search.study import Study
from nas.supernet import Supernet
from nas.training.state import read_about
from tests.tiny_space import tiny

NUM_EVALUATIONS = 14
CONFIG = f"""
space: tests.tiny_space:tiny
data: tests.tiny_data:load
budget: 3s
epochs: 3
training: {{batch_size: 48, checkpoint_steps: 2}}
num-evaluations: {NUM_EVALUATIONS}
max_models: 4
num_validation: 120
"""
TIMEOUT_S = 240.0


def start(run: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "nas", "search", "--run", str(run), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_when(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """`kill -9` as soon as `reached`; fails when the process ends before."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not reached():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline_s, "took too long"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def num_rows(run: Path) -> int:
    """Rows written so far, without disturbing the writer."""
    try:
        with sqlite3.connect(f"file:{run / 'study.db'}?mode=ro", uri=True) as database:
            return int(database.execute("select count(*) from trials where state != 'RUNNING'").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run killed in training, killed in the search, and then let finish."""
    folder = tmp_path_factory.mktemp("pipeline")
    run, config = folder / "run", folder / "options.yaml"
    config.write_text(CONFIG)
    first = start(run, "--config", str(config))
    kill_when(first, (run / "checkpoint.safetensors").exists)
    killed_step = read_about(run / "checkpoint.safetensors")["step"]
    profile = (run / "profile.json").read_bytes()
    kill_when(start(run), lambda: num_rows(run) >= 3)
    killed_rows = Study.load(run / "study.db").frame()
    last = start(run)
    output, _ = last.communicate(timeout=TIMEOUT_S)
    assert last.returncode == 0, output
    return {"run": run, "output": output, "step": killed_step, "rows": killed_rows, "profile": profile}


def test_training_continues_from_its_checkpoint(finished: dict[str, Any]) -> None:
    report = json.loads((finished["run"] / "supernet.json").read_text())
    steps = [row["step"] for row in report["history"]]
    assert finished["step"] in steps
    assert steps == sorted(set(steps))
    assert not (finished["run"] / "checkpoint.safetensors").exists()


def test_nothing_measured_is_lost_or_done_twice(finished: dict[str, Any]) -> None:
    killed = finished["rows"]
    frame = Study.load(finished["run"] / "study.db").frame()
    assert 3 <= len(killed) < NUM_EVALUATIONS
    assert len(frame) == NUM_EVALUATIONS
    genes = [name for name in frame if "." in str(name)]
    assert not frame[genes].duplicated().any()
    pd.testing.assert_frame_equal(frame.iloc[: len(killed)][killed.columns], killed)
    assert (finished["run"] / "profile.json").read_bytes() == finished["profile"]


def test_a_search_without_interruption_gives_the_same_rows(finished: dict[str, Any], tiny_data: ImageData) -> None:
    run = finished["run"]
    supernet = Supernet(tiny(num_channels=1, num_classes=4))
    supernet.load(run / "supernet.safetensors")
    again = nas.run_search(
        supernet, tiny_data, HardwareProfile.load(run / "profile.json"), num_evaluations=NUM_EVALUATIONS
    )
    stored = Study.load(run / "study.db").frame()
    compared = [name for name in stored if name not in ("seconds", "host")]
    pd.testing.assert_frame_equal(again[compared], stored[compared])


def test_workers_of_ray_give_the_same_rows(
    finished: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_worker_niceness", "0")  # with its 15 they hardly start on a busy machine
    run = Path(shutil.copytree(finished["run"], tmp_path / "run"))
    process = start(run, "--redo", "search", "--executor", "ray", "--workers", "2", "--max-models", "1")
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, output
    assert load_options(run / "config.yaml")["executor"] == "ray"
    local, ray = (Study.load(path / "study.db").frame() for path in (run / "replaced" / "1", run))
    assert len(ray) == NUM_EVALUATIONS
    compared = [name for name in local if name not in ("seconds", "host")]
    pd.testing.assert_frame_equal(ray[compared], local[compared])


def test_the_front_is_exported_verified_and_reported(finished: dict[str, Any]) -> None:
    run, frame = finished["run"], nas.load_results(finished["run"])
    members = frame[frame["on_front"]]
    assert len(members) >= 1
    assert members[["measured_latency_ms", "measured_error_pct", "test_error_pct"]].notna().all(axis=None)
    assert (members["agreement_pct"] >= 95).all()
    for index in members["index"]:
        files = {path.name for path in (run / "front" / str(index)).iterdir()}
        assert {"model.onnx", "weights.safetensors", "architecture.json", "preprocess.json"} <= files
    assert len(pd.read_csv(run / "pareto.csv")) == len(members)
    assert "http" not in (run / "report.html").read_text().split("<body")[0].split("<script")[0]
    assert "Pareto front" in finished["output"]
    assert str(run / "report.html") in finished["output"]


def test_run_again_reuses_everything(finished: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run = finished["run"]
    before = {p.name: p.stat().st_mtime_ns for p in run.iterdir() if p.suffix in (".safetensors", ".db", ".json")}
    main(["search", "--run", str(run)])
    after = {p.name: p.stat().st_mtime_ns for p in run.iterdir() if p.suffix in (".safetensors", ".db", ".json")}
    assert after == before
    assert "Pareto front" in capsys.readouterr().out


def test_joining_a_search_that_has_all_it_wants_measures_nothing(
    finished: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    before = Study.load(finished["run"] / "study.db").frame()
    main(["join", str(finished["run"])])
    assert f"join: the study has {NUM_EVALUATIONS} candidates" in capsys.readouterr().err
    pd.testing.assert_frame_equal(Study.load(finished["run"] / "study.db").frame(), before)


def test_other_data_or_constraints_are_refused(finished: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run = finished["run"]
    for arguments, named in (
        (["--num-validation", "100"], "data set was"),
        (["--constraints", "params<=1e9"], "constraints was none, now params<=1e+09"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["search", "--run", str(run), *arguments])
        assert named in capsys.readouterr().err.splitlines()[-1]
    assert len(Study.load(run / "study.db").rows()) == NUM_EVALUATIONS


def test_an_exported_model_predicts_and_loads(
    finished: dict[str, Any], tiny_data: ImageData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["export", str(finished["run"]), "--select", "knee", "--output", str(tmp_path / "models")])
    folder = Path(capsys.readouterr().out.strip())
    images, paths = tiny_data.test.images_BCHW[:3], []
    for index, image in enumerate(images.numpy()):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(image[0]).save(paths[-1])
    main(["predict", str(folder), *map(str, paths)])
    lines = capsys.readouterr().out.splitlines()
    with torch.no_grad():
        classes = nas.load_model(folder)(normalize(images, tiny_data)).argmax(dim=1).tolist()
    for line, path, index in zip(lines, paths, classes, strict=True):
        assert line.startswith(f"{path}: {tiny_data.class_names[index]} (")
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(finished["run"]), "--select", "knee", "--output", str(tmp_path / "models")])
    assert "exists; nothing was overwritten" in capsys.readouterr().err


def test_results_are_printed_and_written(
    finished: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["results", str(finished["run"]), "--all", "--csv", str(tmp_path / "all.csv")])
    assert "All candidates" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "all.csv")) == NUM_EVALUATIONS


def test_precisions_of_one_architecture_are_searched_beside(
    finished: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished["run"]
    joint = (run / "verified.json").read_bytes()
    main(["search", "--run", str(run), "--architecture", "largest", "--num-evaluations", "8"])
    frame = nas.load_results(run, study="study-largest.db")
    genes = [str(name) for name in frame if "." in str(name)]
    assert genes
    assert all(name.startswith("precision.") for name in genes)
    assert np.isfinite(frame.loc[frame["on_front"], "measured_latency_ms"]).all()
    assert (run / "verified.json").read_bytes() == joint
    assert (run / "report-largest.html").is_file()
