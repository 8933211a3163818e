"""What every data set promises: disjoint splits, statistics, a fingerprint."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.data import ImageData, Split, from_arrays, load_data
from tests.tiny_data import draw


def test_splits_share_no_image_and_lose_none() -> None:
    images_BCHW = np.arange(200, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 8, 8), dtype=np.uint8)
    data = from_arrays("rows", train=(images_BCHW, np.arange(200) % 4), class_names=tuple("abcd"), image_size=8)
    seen = torch.cat([split.images_BCHW[:, 0, 0, 0] for split in data.splits.values()])
    assert sorted(seen.tolist()) == list(range(200))
    for split in data.splits.values():
        assert torch.equal(split.labels_B, split.images_BCHW[:, 0, 0, 0].long() % 4)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(5, 40), min_size=2, max_size=6), st.integers(0, 5))
def test_validation_split_has_each_class_in_proportion(counts: list[int], seed: int) -> None:
    labels_B = np.repeat(np.arange(len(counts)), counts)
    num_validation = len(labels_B) // 2
    arrays = (np.zeros((len(labels_B), 1, 8, 8), dtype=np.uint8), labels_B)
    names = tuple(map(str, range(len(counts))))
    data = from_arrays(
        "p", train=arrays, test=arrays, class_names=names, image_size=8, num_validation=num_validation, seed=seed
    )
    assert len(data.validation) == num_validation
    got = torch.bincount(data.validation.labels_B, minlength=len(counts)).numpy()
    assert np.all(np.abs(got - np.array(counts) * num_validation / len(labels_B)) < 1)


def test_seed_changes_validation_but_never_a_cut_test_split() -> None:
    train = draw(200, size=8, rng=np.random.default_rng(0))
    one, two = (
        from_arrays("d", train=train, class_names=tuple("abcd"), image_size=8, seed=seed, num_validation=40)
        for seed in (0, 1)
    )
    assert torch.equal(one.test.images_BCHW, two.test.images_BCHW)
    assert not torch.equal(one.validation.images_BCHW, two.validation.images_BCHW)
    assert one.fingerprint != two.fingerprint


def test_equal_data_have_equal_fingerprints_and_one_changed_pixel_shows(tiny_data: ImageData) -> None:
    def copy(test: Split, names: tuple[str, ...] = tiny_data.class_names) -> ImageData:
        return ImageData(
            name="copy",
            train=tiny_data.train,
            validation=tiny_data.validation,
            test=test,
            class_names=names,
            content_size=tiny_data.content_size,
        )

    changed_BCHW = tiny_data.test.images_BCHW.clone()
    changed_BCHW[0, 0, 0, 0] ^= 1
    assert len(tiny_data.fingerprint) == 16
    assert copy(tiny_data.test).fingerprint == tiny_data.fingerprint
    assert copy(Split(images_BCHW=changed_BCHW, labels_B=tiny_data.test.labels_B)).fingerprint != tiny_data.fingerprint
    assert copy(tiny_data.test, ("w", "x", "y", "z")).fingerprint != tiny_data.fingerprint


def test_mean_and_deviation_equal_those_of_torch() -> None:
    data = load_data("tests.tiny_data:load", image_size=32, num_channels=3)
    pixels = data.train.images_BCHW.double() / 255
    assert data.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert data.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist())


def test_constant_channel_has_a_deviation_to_divide_by() -> None:
    train = (np.zeros((40, 1, 8, 8), dtype=np.uint8), np.arange(40) % 2)
    assert from_arrays("black", train=train, class_names=("a", "b"), image_size=8).std == (1 / 255,)


def test_standard_error_is_that_of_a_binomial(tiny_data: ImageData) -> None:
    assert tiny_data.validation.se_pct(90.0) == pytest.approx(100 * (0.9 * 0.1 / 120) ** 0.5)


def test_default_validation_split_is_a_tenth_but_has_every_class() -> None:
    labels_B = np.arange(300) % 60
    arrays = (np.zeros((300, 1, 8, 8), dtype=np.uint8), labels_B)
    data = from_arrays("many", train=arrays, test=arrays, class_names=tuple(map(str, range(60))), image_size=8)
    assert len(data.validation) == 60


def test_splits_of_different_sizes_are_refused(tiny_data: ImageData) -> None:
    small = Split(images_BCHW=torch.zeros(4, 1, 8, 8, dtype=torch.uint8), labels_B=torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="test images of x are"):
        ImageData(
            name="x",
            train=tiny_data.train,
            validation=tiny_data.validation,
            test=small,
            class_names=tiny_data.class_names,
            content_size=32,
        )
