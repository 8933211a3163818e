"""A run can be killed anywhere and gives the same weights; what doesn't fit is refused in one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nas.data import ImageData
from nas.errors import UserError
from nas.evaluation import accuracy_pct, recalibrate
from nas.training import TrainOptions, train_supernet
from nas.training import state as state_module
from nas.training.loop import learning_rates
from nas.training.state import new_supernet
from search_spaces.fixed import FixedSpace
from tests.nas.training.runs import OPTIONS, StopAt, StoppedError, small_space


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_data: ImageData) -> Path:
    """Folder of an uninterrupted run of 14 steps."""
    folder = tmp_path_factory.mktemp("finished")
    train_supernet(small_space(), tiny_data, folder, options=OPTIONS)
    return folder


def weights_of(folder: Path, data: ImageData, options: TrainOptions = OPTIONS) -> torch.Tensor:
    """Flat weights of a finished run."""
    return train_supernet(small_space(), data, folder, options=options, progress=StopAt(0)).flat  # at once: no step


@pytest.mark.parametrize("step", [1, 3, 8, 14])
def test_killed_run_continues_to_the_weights_of_an_uninterrupted_one(
    step: int, finished: Path, tmp_path: Path, tiny_data: ImageData
) -> None:
    with pytest.raises(StoppedError):
        train_supernet(small_space(), tiny_data, tmp_path, options=OPTIONS, progress=StopAt(step))
    assert not (tmp_path / "supernet.json").exists()
    resumed = train_supernet(small_space(), tiny_data, tmp_path, options=OPTIONS)
    assert torch.equal(resumed.flat, weights_of(finished, tiny_data))
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_run_killed_twice_repeats_only_the_steps_since_the_last_checkpoint(
    tmp_path: Path, tiny_data: ImageData
) -> None:
    seen: list[float] = []
    with pytest.raises(StoppedError):
        train_supernet(small_space(), tiny_data, tmp_path, options=OPTIONS, progress=StopAt(8))
    train_supernet(
        small_space(), tiny_data, tmp_path, options=OPTIONS, progress=lambda done, total, _="": seen.append(done)
    )
    assert seen == [7, 8, 9, 10, 11, 12, 13, 14]  # the last checkpoint was at the end of the epoch


def test_report_says_what_was_trained_and_how_well(finished: Path) -> None:
    report = json.loads((finished / "supernet.json").read_text())
    assert (report["space"], report["num_channels"], report["num_classes"]) == ("small", 1, 4)
    assert [row["step"] for row in report["history"]] == [3, 6, 7, 9, 12, 14]
    assert ["largest_pct" in row for row in report["history"]] == [False, False, True, False, False, True]
    assert set(report["accuracy"]) == {"smallest", "middle", "largest"}
    assert all(0 <= value <= 100 for found in report["accuracy"].values() for value in found.values())
    assert report["seconds"] > 0
    assert TrainOptions.from_json(report["options"]) == OPTIONS


def test_training_learns(tmp_path: Path, tiny_data: ImageData) -> None:
    space = small_space()
    supernet = train_supernet(space, tiny_data, tmp_path, options=replace(OPTIONS, num_epochs=8))
    for architecture in (space.smallest(), space.largest()):
        network = recalibrate(supernet.extract(architecture), tiny_data)
        assert accuracy_pct(network, tiny_data.test, tiny_data) > 60  # chance is 25


def test_more_epochs_train_a_finished_supernet_on(tmp_path: Path, tiny_data: ImageData) -> None:
    train_supernet(small_space(), tiny_data, tmp_path, options=OPTIONS)
    steps: list[float] = []
    longer = replace(OPTIONS, num_epochs=3)
    train_supernet(
        small_space(), tiny_data, tmp_path, options=longer, progress=lambda done, total, _="": steps.append(done)
    )
    assert steps == list(range(14, 22))
    assert json.loads((tmp_path / "supernet.json").read_text())["history"][-1]["step"] == 21


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 1e-3}, "was trained with learning_rate=0.003, not 0.001; use the same options"),
        ({"num_epochs": 1}, "has num_epochs=2, more than the 1 asked for; ask for at least 2 or use another folder"),
    ],
)
def test_finished_supernet_with_other_options_is_refused(
    change: dict[str, float], message: str, finished: Path, tiny_data: ImageData
) -> None:
    with pytest.raises(UserError, match=message):
        train_supernet(small_space(), tiny_data, finished, options=replace(OPTIONS, **change))


def test_supernet_of_another_space_is_refused(finished: Path, tiny_data: ImageData) -> None:
    with pytest.raises(UserError, match="was trained with another search space; remove it or use another folder"):
        train_supernet(small_space(widths=(8, 24)), tiny_data, finished, options=OPTIONS)


def test_space_that_does_not_fit_the_data_is_refused(tmp_path: Path, tiny_data: ImageData) -> None:
    with pytest.raises(UserError, match="tiny has num_classes=4, space small 10"):
        train_supernet(small_space(num_classes=10), tiny_data, tmp_path, options=OPTIONS)


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_damaged_checkpoint_is_refused_and_kept(damage: bytes | None, tmp_path: Path, tiny_data: ImageData) -> None:
    with pytest.raises(StoppedError):
        train_supernet(small_space(), tiny_data, tmp_path, options=OPTIONS, progress=StopAt(4))
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    before = path.read_bytes()
    with pytest.raises(UserError, match="can't be read .*; remove it and train again"):
        train_supernet(small_space(), tiny_data, tmp_path, options=OPTIONS)
    assert path.read_bytes() == before


def test_full_disk_is_one_line_and_keeps_the_last_checkpoint(
    tmp_path: Path, tiny_data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoppedError):
        train_supernet(small_space(), tiny_data, tmp_path, options=OPTIONS, progress=StopAt(4))
    before = (tmp_path / "checkpoint.safetensors").read_bytes()

    def full(tensors: object, path: Path, metadata: object = None) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state_module, "save_file", full)
    with pytest.raises(UserError, match=r"No space left on device\); make room and run the same command again"):
        train_supernet(small_space(), tiny_data, tmp_path, options=OPTIONS)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_loss_that_is_not_finite_ends_training(tmp_path: Path, tiny_data: ImageData) -> None:
    with pytest.raises(UserError, match="lower the learning rate, 1e\\+30 now"):
        train_supernet(small_space(), tiny_data, tmp_path, options=replace(OPTIONS, learning_rate=1e30))


def test_learning_rate_rises_then_falls_to_a_thousandth() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, rates = learning_rates(optimizer, 100, replace(OPTIONS, learning_rate=1.0, warmup_pct=10.0)), []
    for step in range(101):
        schedule.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(0.01)
    assert 9 <= max(range(101), key=rates.__getitem__) <= 11
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_epochs": 0}, "num_epochs=0 is not possible; it must be above 0"),
        ({"ema_decay": 1.0}, "ema_decay=1.0 is not possible; it must be at least 0 and below 1"),
        ({"size_bias": 1.0}, "size_bias=1.0 is not possible; it must be at least 0 and below 1"),
        ({"divergence": "alhpa"}, "divergence='alhpa' is not possible; choose one of .*'alpha'"),
        ({"soft_targets": "large"}, "soft_targets='large' is not possible; choose one of .*'larger'"),
        ({"strategy": "sandwhich"}, "unknown strategy 'sandwhich'; available: .*sandwich.*. Did you mean sandwich?"),
    ],
)
def test_impossible_options_are_refused(
    options: dict[str, float], message: str, tmp_path: Path, tiny_data: ImageData
) -> None:
    with pytest.raises(UserError, match=message):
        train_supernet(small_space(), tiny_data, tmp_path, options=replace(OPTIONS, **options))


def test_training_starts_from_blocks_that_change_nothing() -> None:
    supernet = new_supernet(small_space())
    images_BCHW = torch.rand(2, 1, 32, 32)
    network = supernet.subnet(small_space().largest())
    features_BCHW = network.blocks[0](images_BCHW)
    for block in list(network.blocks)[1:5]:
        assert torch.equal(block(features_BCHW), features_BCHW)


def test_network_alone_starts_from_the_weights_that_the_supernet_of_its_space_lends_it() -> None:
    space, lent = small_space(), []
    for start in (space, FixedSpace(space, space.smallest())):
        torch.manual_seed(7)
        lent.append(new_supernet(start).extract(space.smallest()))
    for ours, theirs in zip(lent[0].parameters(), lent[1].parameters(), strict=True):
        assert torch.equal(ours, theirs)
