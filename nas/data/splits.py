"""Cut what a source holds into training, validation and test images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import train_test_split

from nas.data.dataset import ImageData, Split
from nas.data.decode import Arrays, fit_arrays
from nas.errors import UserError

MAX_VALIDATION = 5_000
"""Images in the default validation split; at 90% accuracy a standard error of 0.4 points."""
MAX_TEST = 10_000
"""Images in a test split that has to be cut from the training data."""
CUT_SHARE = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedData:
    """What a source returns: images of the wanted size, under the split names it has."""

    name: str
    splits: Mapping[str, Arrays]
    """`train`, and where the source has them `validation` and `test`."""
    class_names: tuple[str, ...]
    content_size: int


def from_arrays(
    name: str,
    *,
    train: Arrays,
    class_names: tuple[str, ...],
    image_size: int,
    validation: Arrays | None = None,
    test: Arrays | None = None,
    num_channels: int | None = None,
    num_validation: int | None = None,
    seed: int = 0,
) -> ImageData:
    """Make a data set of your own arrays: (uint8 images [B, C, H, W], integer labels [B]) a split.

    Images are resized and converted; splits that are missing are cut from the training images.
    """
    given = {"train": train, "validation": validation, "test": test}
    splits = {
        split: fit_arrays(arrays, image_size=image_size, num_channels=num_channels, content_size=image_size)
        for split, arrays in given.items()
        if arrays is not None
    }
    decoded = DecodedData(name=name, splits=splits, class_names=tuple(class_names), content_size=image_size)
    return make_splits(decoded, num_validation=num_validation, seed=seed)


def split_of_name(name: str) -> str | None:
    """The split a folder or a part of a file's name stands for."""
    names = {"train": "train", "training": "train", "test": "test", "testing": "test"}
    return (names | dict.fromkeys(("val", "valid", "validation", "dev"), "validation")).get(name.lower())


def check_has_train(splits: Mapping[str, object], folder: Path) -> None:
    """Raise a `UserError` unless there is a training split."""
    if "train" not in splits:
        found = ", ".join(sorted(splits)) or "none"
        raise UserError(f"{folder} has no train split (found: {found}); name a folder or parquet file 'train'")


def make_splits(decoded: DecodedData, *, num_validation: int | None, seed: int) -> ImageData:
    """Cut the splits that are missing, stratified by class.

    A source with `train` and `validation` only has its validation images for a test, as published sets mean it. The
    test cut never depends on `seed`, so that runs with different seeds are judged by the same images.
    """
    splits = dict(decoded.splits)
    for split, (_, labels_B) in splits.items():
        _check_labels(labels_B, split, decoded)
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
    _check_class_counts(splits, decoded)
    num_classes = len(decoded.class_names)
    if "test" not in splits:
        num_test = _default_count(splits["train"], MAX_TEST, num_classes)
        splits["train"], splits["test"] = _cut(splits["train"], num_test, seed=0, decoded=decoded, what="test")
    if "validation" not in splits:
        num_cut = num_validation or _default_count(splits["train"], MAX_VALIDATION, num_classes)
        splits["train"], splits["validation"] = _cut(
            splits["train"], num_cut, seed=seed, decoded=decoded, what="validation"
        )
    elif num_validation is not None and num_validation != len(splits["validation"][1]):
        _, splits["validation"] = _cut(
            splits["validation"], num_validation, seed=seed, decoded=decoded, what="validation"
        )
    return ImageData(
        name=decoded.name,
        class_names=decoded.class_names,
        content_size=decoded.content_size,
        train=_to_split(splits["train"]),
        validation=_to_split(splits["validation"]),
        test=_to_split(splits["test"]),
    )


def _to_split(arrays: Arrays) -> Split:
    images_BCHW, labels_B = arrays
    images_BCHW = np.require(images_BCHW, requirements=["C", "W"])
    return Split(images_BCHW=torch.from_numpy(images_BCHW), labels_B=torch.from_numpy(labels_B.astype(np.int64)))


def _default_count(arrays: Arrays, maximum: int, num_classes: int) -> int:
    return max(num_classes, min(round(CUT_SHARE * len(arrays[1])), maximum))


def _cut(arrays: Arrays, count: int, *, seed: int, decoded: DecodedData, what: str) -> tuple[Arrays, Arrays]:
    """The rest, and `count` images with about the same share of every class; both in the order they came in."""
    images_BCHW, labels_B = arrays
    num_present = len(np.unique(labels_B))
    low, high = num_present, len(labels_B) - num_present
    if not low <= count <= high:
        raise UserError(
            f"{count} {what} images cannot be cut from {len(labels_B)} images of {decoded.name} with {num_present} "
            f"classes; choose {low} to {high} or add images"
        )
    rest, cut = train_test_split(np.arange(len(labels_B)), test_size=count, stratify=labels_B, random_state=seed)
    rest.sort()
    cut.sort()
    return (images_BCHW[rest], labels_B[rest]), (images_BCHW[cut], labels_B[cut])


def _check_labels(labels_B: np.ndarray, split: str, decoded: DecodedData) -> None:
    num_classes = len(decoded.class_names)
    if len(labels_B) == 0:
        raise UserError(f"the {split} split of {decoded.name} is empty; add images or remove it")
    outside = labels_B[(labels_B < 0) | (labels_B >= num_classes)]
    if len(outside):
        raise UserError(
            f"label {int(outside[0])} in the {split} split of {decoded.name} is outside 0..{num_classes - 1}, its "
            f"{num_classes} classes; correct the labels, or remove a split whose labels are hidden"
        )


def _check_class_counts(splits: Mapping[str, Arrays], decoded: DecodedData) -> None:
    counts = np.bincount(splits["train"][1], minlength=len(decoded.class_names))
    if np.count_nonzero(counts) < 2:
        raise UserError(f"{decoded.name} has one class, {decoded.class_names[counts.argmax()]!r}; add a second one")
    needed = 1 + sum(split not in splits for split in ("validation", "test"))
    scarce = np.flatnonzero((counts > 0) & (counts < needed))
    if len(scarce):
        index = int(scarce[0])
        raise UserError(
            f"class {decoded.class_names[index]!r} of {decoded.name} has {_images(int(counts[index]))}; it needs "
            f"{needed} or more, one for each split cut from it: add images or remove the class"
        )


def _images(count: int) -> str:
    return f"{count} training image" + ("" if count == 1 else "s")
