"""Cut what a source holds into training, validation and test images."""

from collections.abc import Callable, Mapping
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
    """Cut the splits that are missing, see `cut_splits`."""
    labels = {split: labels_B for split, (_, labels_B) in decoded.splits.items()}
    for split, labels_B in labels.items():
        check_labels(
            labels_B,
            split,
            name=decoded.name,
            num_classes=len(decoded.class_names),
            place_of=lambda _, split=split: f"the {split} split of {decoded.name}",  # type: ignore[misc]
        )
    cuts = cut_splits(
        labels, name=decoded.name, class_names=decoded.class_names, num_validation=num_validation, seed=seed
    )
    return ImageData(
        name=decoded.name,
        class_names=decoded.class_names,
        content_size=decoded.content_size,
        train=_to_split(decoded, cuts["train"]),
        validation=_to_split(decoded, cuts["validation"]),
        test=_to_split(decoded, cuts["test"]),
    )


Cut = tuple[str, np.ndarray]
"""A split of the source, and ascending indices into it."""


def cut_splits(
    labels: Mapping[str, np.ndarray], *, name: str, class_names: tuple[str, ...], num_validation: int | None, seed: int
) -> dict[str, Cut]:
    """Which images are `train`, `validation` and `test`: what a source lacks is cut, stratified by class.

    A source with `train` and `validation` only has its validation images for a test, as published sets mean it. The
    test cut never depends on `seed`, so that runs with different seeds are judged by the same images.

    Args:
        labels: of all images in each split of the source.
    """
    cuts = {split: (split, np.arange(len(labels_B))) for split, labels_B in labels.items()}
    if "test" not in cuts and "validation" in cuts:
        cuts["test"] = cuts.pop("validation")
    num_missing = 3 - len(cuts)
    _check_class_counts(labels["train"], name=name, class_names=class_names, needed=1 + num_missing)

    def cut(split: str, what: str, count: int, seed: int) -> tuple[Cut, Cut]:
        source, indices_B = cuts[split]
        rest, chosen = _cut(labels[source][indices_B], count, seed=seed, name=name, what=what)
        return (source, indices_B[rest]), (source, indices_B[chosen])

    num_classes = len(class_names)
    if "test" not in cuts:
        num_test = _default_count(len(labels["train"]), MAX_TEST, num_classes)
        cuts["train"], cuts["test"] = cut("train", "test", num_test, 0)
    if "validation" not in cuts:
        num_cut = num_validation or _default_count(len(cuts["train"][1]), MAX_VALIDATION, num_classes)
        cuts["train"], cuts["validation"] = cut("train", "validation", num_cut, seed)
    elif num_validation is not None and num_validation != len(cuts["validation"][1]):
        _, cuts["validation"] = cut("validation", "validation", num_validation, seed)
    return cuts


def check_labels(
    labels_B: np.ndarray, split: str, *, name: str, num_classes: int, place_of: Callable[[int], str]
) -> None:
    """Raise a `UserError` when there are no labels, or one is not a class; `place_of(index)` says where it stands."""
    if len(labels_B) == 0:
        raise UserError(f"the {split} split of {name} is empty; add images or remove it")
    outside = np.flatnonzero((labels_B < 0) | (labels_B >= num_classes))
    if len(outside):
        index = int(outside[0])
        raise UserError(
            f"label {int(labels_B[index])} in {place_of(index)} is outside 0..{num_classes - 1}, its "
            f"{num_classes} classes; correct the labels, or remove a split whose labels are hidden"
        )


def _to_split(decoded: DecodedData, cut: Cut) -> Split:
    source, indices_B = cut
    images_BCHW, labels_B = decoded.splits[source]
    if len(indices_B) < len(labels_B):
        images_BCHW, labels_B = images_BCHW[indices_B], labels_B[indices_B]
    images_BCHW = np.require(images_BCHW, requirements=["C", "W"])
    return Split(images_BCHW=torch.from_numpy(images_BCHW), labels_B=torch.from_numpy(labels_B.astype(np.int64)))


def _default_count(num_images: int, maximum: int, num_classes: int) -> int:
    return max(num_classes, min(round(CUT_SHARE * num_images), maximum))


def _cut(labels_B: np.ndarray, count: int, *, seed: int, name: str, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rest, and of `count` images with about the same share of every class; both ascending."""
    num_present = len(np.unique(labels_B))
    low, high = num_present, len(labels_B) - num_present
    if not low <= count <= high:
        raise UserError(
            f"{count} {what} images cannot be cut from {len(labels_B)} images of {name} with {num_present} "
            f"classes; choose {low} to {high} or add images"
        )
    rest, cut = train_test_split(np.arange(len(labels_B)), test_size=count, stratify=labels_B, random_state=seed)
    return np.sort(rest), np.sort(cut)


def _check_class_counts(labels_B: np.ndarray, *, name: str, class_names: tuple[str, ...], needed: int) -> None:
    counts = np.bincount(labels_B, minlength=len(class_names))
    if np.count_nonzero(counts) < 2:
        raise UserError(f"{name} has one class, {class_names[counts.argmax()]!r}; add a second one")
    scarce = np.flatnonzero((counts > 0) & (counts < needed))
    if len(scarce):
        index = int(scarce[0])
        raise UserError(
            f"class {class_names[index]!r} of {name} has {_images(int(counts[index]))}; it needs "
            f"{needed} or more, one for each split cut from it: add images or remove the class"
        )


def _images(count: int) -> str:
    return f"{count} training image" + ("" if count == 1 else "s")
