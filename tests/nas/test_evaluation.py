"""Batch-norm statistics and accuracy against slow, obvious references."""

import math

import pytest
import torch
from torch import nn

from nas.data import ImageData, Split
from nas.evaluation import (
    accuracy_pct,
    batches,
    images_at_once,
    normalize,
    predict_logits,
    recalibrate,
    score,
)
from tests.tiny_space import tiny


def test_pixels_are_normalized_by_the_statistics_of_the_data(tiny_data: ImageData) -> None:
    x_BCHW = normalize(tiny_data.train.images_BCHW, tiny_data)
    assert x_BCHW.mean().item() == pytest.approx(0, abs=0.01)
    assert x_BCHW.std().item() == pytest.approx(1, abs=0.01)
    parts = torch.cat(list(batches(tiny_data.train.images_BCHW, tiny_data, batch_size=64)))
    torch.testing.assert_close(parts, x_BCHW)


def test_recalibration_averages_batches_and_changes_nothing_else(tiny_data: ImageData) -> None:
    norm = nn.BatchNorm2d(1, momentum=0.2)
    network = nn.Sequential(norm, nn.Flatten(), nn.Linear(32 * 32, 4))
    before = [parameter.clone() for parameter in network.parameters()]
    norm.running_mean += 5
    assert recalibrate(network, tiny_data, num_images=300) is network
    parts = list(batches(tiny_data.calibration_images(300), tiny_data))
    expected = torch.stack([part.mean() for part in parts]).mean()
    assert norm.running_mean.item() == pytest.approx(expected.item(), abs=1e-5)
    assert norm.running_var.item() == pytest.approx(torch.stack([p.var() for p in parts]).mean().item(), rel=1e-4)
    assert norm.momentum == 0.2
    assert not network.training
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_recalibration_twice_is_recalibration_once(tiny_data: ImageData) -> None:
    torch.manual_seed(0)
    network = tiny().build(tiny().smallest())
    first = {k: v.clone() for k, v in recalibrate(network, tiny_data, num_images=128).state_dict().items()}
    again = recalibrate(network, tiny_data, num_images=128).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_scores_are_means_over_images_one_by_one(tiny_data: ImageData) -> None:
    torch.manual_seed(0)
    network = recalibrate(tiny().build(tiny().smallest()), tiny_data, num_images=128)
    every = tiny_data.validation
    split, hits, chances = Split(images_BCHW=every.images_BCHW[:40], labels_B=every.labels_B[:40]), 0, []
    with torch.no_grad():
        for image_CHW, label in zip(split.images_BCHW, split.labels_B, strict=True):
            logits_K = network(normalize(image_CHW[None], tiny_data))[0]
            hits += int(logits_K.argmax() == label)
            chances.append(float(logits_K.exp()[label] / logits_K.exp().sum()))
    found = score(network, split, tiny_data)
    assert found.accuracy_pct == accuracy_pct(network, split, tiny_data) == pytest.approx(100 * hits / len(split))
    assert found.cross_entropy == pytest.approx(-sum(map(math.log, chances)) / len(split), rel=1e-4)
    assert found.true_class_pct == pytest.approx(100 * sum(chances) / len(split), rel=1e-4)


@pytest.mark.parametrize(
    ("image_size", "group", "expected"), [(28, 1, 256), (32, 1, 256), (32, 3, 255), (128, 1, 16), (128, 64, 64)]
)
def test_large_images_are_evaluated_few_at_once_in_whole_groups(image_size: int, group: int, expected: int) -> None:
    assert images_at_once(torch.empty(0, 3, image_size, image_size), group=group) == expected


def test_dynamic_ranges_are_those_of_the_batches_that_the_target_sees(tiny_data: ImageData) -> None:
    class RangeOfBatch(nn.Module):
        batch_size = 3

        def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
            return torch.stack([x_BCHW[index // 3 * 3 :][:3].amax() for index in range(len(x_BCHW))])[:, None]

    images_BCHW = tiny_data.train.images_BCHW[:260]
    together = predict_logits(RangeOfBatch(), images_BCHW, tiny_data)
    batch_by_batch = [predict_logits(RangeOfBatch(), part, tiny_data) for part in images_BCHW.split(3)]
    assert len(images_BCHW) == 260
    torch.testing.assert_close(together, torch.cat(batch_by_batch))
