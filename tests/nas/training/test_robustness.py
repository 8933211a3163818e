"""What a run does when a loss is not finite, an image is damaged, or a gradient is too long."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.data import ImageData
from nas.data.dataset import Images, Split
from nas.errors import UserError
from nas.supernet import Supernet
from nas.training import TrainOptions, train_supernet
from nas.training.batches import load_batches
from nas.training.loop import train_step
from nas.training.state import TrainState, new_state, read_about, restore_state
from nas.training.strategies import Batch, SinglePath, get_strategy
from tests.nas.training.runs import OPTIONS, small_space


class SometimesNan(SinglePath):
    """Its loss is not a number in the steps of `bad`."""

    bad: range = range(3, 5)
    step_index = 0

    def step(self, supernet: Supernet, batch: Batch, *, done: float, rng: np.random.Generator) -> torch.Tensor:
        loss = super().step(supernet, batch, done=done, rng=rng)
        self.step_index += 1
        if self.step_index - 1 in self.bad:
            supernet.flat_grad.fill_(float("nan"))
        return loss


class AlwaysNan(SometimesNan):
    bad = range(8, 10**6)


def first_step(data: ImageData, options: TrainOptions) -> TrainState:
    torch.manual_seed(0)
    supernet = Supernet(small_space())
    state = new_state(supernet, get_strategy(options, supernet.space), options)
    raws = next(load_batches(data, options, num_views=1, shards=range(1), steps=range(1)))
    assert train_step(state, data, options, {0: raws[0]}) is not None
    return state


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(tmp_path: Path, tiny_data: ImageData) -> None:
    options = replace(OPTIONS, strategy=f"{__name__}:SometimesNan")
    supernet = train_supernet(small_space(), tiny_data, tmp_path, options=options)
    assert supernet.flat.isfinite().all()
    assert '"num_skipped": 2' in (tmp_path / "supernet.json").read_text()


def test_training_that_is_lost_stops_and_keeps_its_last_good_checkpoint(tmp_path: Path, tiny_data: ImageData) -> None:
    options = replace(OPTIONS, strategy=f"{__name__}:AlwaysNan", num_epochs=4)
    with pytest.raises(UserError, match="steps in a row up to step .* had no finite loss or gradient; lower"):
        train_supernet(small_space(), tiny_data, tmp_path, options=options)
    assert 7 <= read_about(tmp_path / "checkpoint.safetensors")["step"] <= 13
    resumed = new_state(Supernet(small_space()), get_strategy(OPTIONS, small_space()), OPTIONS)
    restore_state(resumed, tmp_path / "checkpoint.safetensors")
    assert resumed.supernet.flat.isfinite().all()


class Damaged(Split):
    """A split of which the images below `num_bad` can't be decoded."""

    num_bad = 3

    def read(self, indices: np.ndarray) -> Images:
        images = super().read(indices)
        names = tuple(f"image {index}" for index in indices if index < self.num_bad)
        return Images(images_BCHW=images.images_BCHW, labels_B=images.labels_B, damaged=names)


class VeryDamaged(Damaged):
    num_bad = 100


def with_training(data: ImageData, kind: type[Split]) -> ImageData:
    return replace(data, train=kind(images_BCHW=data.train.images_BCHW, labels_B=data.train.labels_B))


def test_a_few_damaged_images_are_named_in_the_report(tmp_path: Path, tiny_data: ImageData) -> None:
    train_supernet(small_space(), with_training(tiny_data, Damaged), tmp_path, options=OPTIONS)
    assert '"image 2"' in (tmp_path / "supernet.json").read_text()


def test_many_damaged_images_stop_training(tmp_path: Path, tiny_data: ImageData) -> None:
    with pytest.raises(UserError, match="training images can't be decoded, the latest is image .*; replace them"):
        train_supernet(small_space(), with_training(tiny_data, VeryDamaged), tmp_path, options=OPTIONS)


def test_long_gradients_are_scaled_down(tiny_data: ImageData) -> None:
    free = first_step(tiny_data, OPTIONS).supernet.flat_grad.norm()
    clipped = first_step(tiny_data, replace(OPTIONS, max_grad_norm=0.1)).supernet.flat_grad.norm()
    assert free > 0.2
    assert float(clipped) == pytest.approx(0.1, rel=1e-4)


def test_worker_processes_read_the_same_batches(tmp_path: Path, tiny_data: ImageData) -> None:
    results = [
        train_supernet(
            small_space(), tiny_data, tmp_path / str(count), options=replace(OPTIONS, num_workers=count, max_shift=2)
        ).flat
        for count in (0, 2)
    ]
    assert torch.equal(*results)


def test_drop_path_and_mixed_precision_train(tmp_path: Path, tiny_data: ImageData) -> None:
    options = replace(OPTIONS, drop_path=0.2, mixed_precision="bf16", mixup=0.2, cutmix=0.5, label_smoothing=0.1)
    supernet = train_supernet(small_space(), tiny_data, tmp_path, options=options)
    assert supernet.flat.isfinite().all()
