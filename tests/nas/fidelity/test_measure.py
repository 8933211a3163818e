"""A whole measurement whose only worker is killed, and which two others then finish."""

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from nas.data import ImageData
from nas.error_estimate import ErrorEstimate
from nas.errors import UserError
from nas.evaluation import accuracy_pct, predict_classes, recalibrate, score
from nas.fidelity.measure import inherited_scores, is_complete, load_fidelity, measure_fidelity, training_budget
from nas.fidelity.options import FidelityOptions
from nas.fidelity.rows import load_rows
from nas.fidelity.sampling import choose_members, plan_trainings
from nas.fidelity.standalone import standalone_options
from nas.supernet import Supernet
from nas.training import train_supernet
from search_spaces import SearchSpace
from search_spaces.fixed import FixedSpace
from tests import tiny_data as tiny
from tests.nas.training.runs import OPTIONS as RECIPE
from tests.nas.training.runs import small_space

OPTIONS = FidelityOptions(num_architectures=3, epochs_alone=1, repeats=2, num_repeated=1, seed=3, workers=1)
SPACE = small_space()
MEMBERS = choose_members(SPACE, OPTIONS)
PLAN = plan_trainings(MEMBERS, OPTIONS)
REPORT = {"history": [{"step": 3, "loss": 2.0}, {"step": 14, "loss": 1.0}]}


def load() -> tuple[ImageData, SearchSpace]:
    """What a worker calls."""
    return tiny.load(), small_space()


class KillWorkers:
    """Progress that kills the workers while a second network trains, once a first one has its row."""

    def __init__(self, csv: Path, checkpoints: Path):
        self._csv, self._checkpoints = csv, checkpoints

    def __call__(self, done: float, total: float, message: str = "") -> None:
        if len(load_rows(self._csv)) == 1 and any(self._checkpoints.glob("*/checkpoint.safetensors")):
            for process in multiprocessing.active_children():
                process.kill()


class Recorder:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self.messages: list[str] = []

    def __call__(self, done: float, total: float, message: str = "") -> None:
        self.shares.append(done / total)
        self.messages.append(message)


@pytest.fixture(scope="module")
def measured(tiny_data: ImageData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("fidelity")
    (folder / "supernet.json").write_text(json.dumps(REPORT))
    torch.manual_seed(0)
    supernet = Supernet(SPACE)
    common: dict[str, Any] = {"recipe": RECIPE, "load": load}
    killer = KillWorkers(folder / "fidelity.csv", folder / "fidelity")
    with pytest.raises(UserError, match="the same command continues") as error:
        measure_fidelity(supernet, tiny_data, folder, MEMBERS, options=OPTIONS, progress=killer, **common)
    killed_rows, left = load_rows(folder / "fidelity.csv"), multiprocessing.active_children()
    recorder, two = Recorder(), FidelityOptions(**OPTIONS.to_json() | {"workers": 2})
    content = measure_fidelity(supernet, tiny_data, folder, MEMBERS, options=two, progress=recorder, **common)
    return {
        "folder": folder,
        "supernet": supernet,
        "killed": str(error.value),
        "killed_rows": killed_rows,
        "left": left,
        "progress": recorder,
        "content": content,
        "rows": load_rows(folder / "fidelity.csv"),
    }


def test_a_killed_worker_is_told_in_one_line_and_leaves_no_other(measured: dict[str, Any]) -> None:
    assert "\n" not in measured["killed"]
    assert measured["left"] == []
    assert len(measured["killed_rows"]) == 1
    assert multiprocessing.active_children() == []


def test_every_training_has_one_row_and_earlier_rows_stay(measured: dict[str, Any]) -> None:
    rows = measured["rows"]
    assert list(zip(rows["index"], rows["seed"], strict=True)) == sorted((t.member.index, t.seed) for t in PLAN)
    written = [name for name in rows if not str(name).startswith("inherited")]
    pd.testing.assert_frame_equal(rows.iloc[:1][written], measured["killed_rows"][written])


def test_a_row_is_what_training_that_network_alone_gives_with_any_number_of_workers(
    measured: dict[str, Any], tiny_data: ImageData, tmp_path: Path
) -> None:
    rows, num_threads = measured["rows"].set_index(["index", "seed"]), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for training in PLAN:
            options = standalone_options(RECIPE, num_epochs=1, seed=training.seed)
            folder = tmp_path / training.folder_name
            train_supernet(FixedSpace(SPACE, training.member.architecture), tiny_data, folder, options=options)
            accuracy = json.loads((folder / "supernet.json").read_text())["accuracy"]["largest"]
            row = rows.loc[(training.member.index, training.seed)]
            assert row["standalone_validation_pct"] == accuracy["validation_pct"]
            assert row["standalone_test_pct"] == accuracy["test_pct"]
    finally:
        torch.set_num_threads(num_threads)


def test_inherited_accuracy_is_of_the_recalibrated_sub_network(measured: dict[str, Any], tiny_data: ImageData) -> None:
    for member in MEMBERS:
        network = recalibrate(measured["supernet"].extract(member.architecture), tiny_data)
        row = measured["rows"].set_index("index").loc[[member.index]].iloc[0]
        test = score(network, tiny_data.test, tiny_data)
        assert row["inherited_validation_pct"] == accuracy_pct(network, tiny_data.validation, tiny_data)
        assert row["inherited_test_pct"] == test.accuracy_pct
        assert row["inherited_test_cross_entropy"] == test.cross_entropy
        assert row["inherited_test_true_class_pct"] == test.true_class_pct
        assert row["inherited_test_estimated_error_pct"] == 100 - test.accuracy_pct  # three can't be regressed on


def test_errors_are_estimated_from_what_all_members_miss(measured: dict[str, Any], tiny_data: ImageData) -> None:
    members = choose_members(SPACE, replace(OPTIONS, num_architectures=8))
    misses, cross_entropies, errors = [], [], []
    for member in members:
        network = recalibrate(measured["supernet"].extract(member.architecture), tiny_data)
        misses.append(predict_classes(network, tiny_data.test.images_BCHW, tiny_data) != tiny_data.test.labels_B)
        cross_entropies.append(score(network, tiny_data.test, tiny_data).cross_entropy)
        errors.append(100 * misses[-1].float().mean().item())
    fitted = ErrorEstimate.fit(torch.stack(misses).numpy(), np.array(cross_entropies))
    assert fitted != ErrorEstimate()
    found = inherited_scores(measured["supernet"], tiny_data, members)
    expected = fitted(pd.Series(errors), pd.Series(cross_entropies))
    assert [found[member.index][4] for member in members] == pytest.approx(expected.tolist(), rel=1e-5)


def test_the_summary_says_what_was_done_and_weights_are_gone(measured: dict[str, Any]) -> None:
    content, folder = measured["content"], measured["folder"]
    assert load_fidelity(folder) == content
    assert (content["num_ranked"], content["num_trainings"], content["seeds"]) == (3, 4, [3, 4])
    assert {"kendall", "gap_smallest_pct", "gap_largest_pct"} <= set(content["figures"])
    assert {"versions", "device", "date", "command", "commit", "options"} <= set(content)
    assert content["budget"] == {
        "supernet_steps": 14,
        "steps_a_sub_network": 14 / SPACE.num_architectures(),
        "standalone_steps": 7,
    }
    assert {path.name for path in folder.iterdir()} == {"fidelity.csv", "fidelity.json", "supernet.json"}


def test_progress_counts_what_was_there_and_ends_whole(measured: dict[str, Any]) -> None:
    progress = measured["progress"]
    assert progress.shares == sorted(progress.shares)
    assert progress.shares[0] >= MEMBERS[0].macs / sum(training.member.macs for training in PLAN)
    assert progress.shares[-1] == 1.0
    assert "4/4 networks trained alone" in progress.messages


def test_a_finished_plan_is_complete_and_a_longer_one_is_not(measured: dict[str, Any]) -> None:
    longer = FidelityOptions(**OPTIONS.to_json() | {"repeats": 3})
    assert is_complete(measured["folder"], PLAN)
    assert is_complete(measured["folder"], PLAN[:2])
    assert not is_complete(measured["folder"], plan_trainings(MEMBERS, longer))


def test_the_standalone_recipe_is_the_supernets_but_for_what_a_network_alone_needs() -> None:
    recipe = replace(RECIPE, strategy="sandwich")
    options = standalone_options(recipe, num_epochs=9, seed=5)
    assert recipe.differences(options) == ["strategy", "seed"]
    assert (options.strategy, options.num_epochs, options.seed) == ("single-path", 9, 5)


def test_a_supernet_without_history_has_no_budget(tmp_path: Path) -> None:
    (tmp_path / "supernet.json").write_text("{}")
    assert training_budget(tmp_path, SPACE) == {"supernet_steps": None, "steps_a_sub_network": None}


def test_a_damaged_summary_is_one_line(tmp_path: Path) -> None:
    assert load_fidelity(tmp_path) is None
    for text in ("{", "[]", '{"figures": {"kendall": 3}}', '{"figures": 3}'):
        (tmp_path / "fidelity.json").write_text(text)
        with pytest.raises(UserError, match="fidelity.json is damaged; remove it"):
            load_fidelity(tmp_path)
