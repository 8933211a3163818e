"""What is seen of a supernet while it trains."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nas.data import ImageData
from nas.errors import UserError
from nas.supernet import Supernet
from nas.training import train_supernet
from nas.training.options import TrainOptions
from nas.training.watch import Tracker, accuracies, glance
from tests.nas.training.runs import OPTIONS, small_space


def test_a_glance_judges_the_given_weights_and_leaves_the_supernet_as_it_is(tiny_data: ImageData) -> None:
    torch.manual_seed(0)
    trained, other = Supernet(small_space()), Supernet(small_space())
    weights = trained.flat.clone()
    seen = glance(other, weights, tiny_data, num_images=10_000)
    expected = {name: values["validation_pct"] for name, values in accuracies(trained, tiny_data).items()}
    assert seen == pytest.approx({f"{name}_pct": value for name, value in expected.items()}, abs=3)
    assert not torch.equal(other.flat, weights)


def test_tensorboard_gets_loss_rate_and_accuracy(tmp_path: Path, tiny_data: ImageData) -> None:
    train_supernet(small_space(), tiny_data, tmp_path, options=replace(OPTIONS, tracker="tensorboard"))
    found = EventAccumulator(str(tmp_path / "training"))
    found.Reload()
    assert {"loss", "learning_rate", "smallest_pct", "largest_pct"} <= set(found.Tags()["scalars"])
    assert [event.step for event in found.Scalars("loss")] == [3, 6, 7, 9, 12, 14]


def test_a_tracker_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(*args: object, **kwargs: object) -> None:
        raise ImportError("No module named 'mlflow'")

    monkeypatch.setattr("accelerate.tracking.MLflowTracker", missing)
    with pytest.raises(UserError, match="tracker 'mlflow' can't be used .*; pip install mlflow, or leave"):
        Tracker(TrainOptions(tracker="mlflow"), tmp_path)
