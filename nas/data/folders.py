"""A folder of class folders: `cat/1.jpg`, or `train/cat/1.jpg` and `test/cat/2.jpg`."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.data.splits import check_has_train, split_of_name
from nas.data.stream_source import EncodedData
from nas.errors import UserError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Files taken for images; others are ignored."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderImages:
    """Images that are files of their own."""

    folder: Path
    paths_B: np.ndarray
    """Encoded names below the folder, in one array: worker processes then share its memory."""
    labels_B: np.ndarray

    def files(self) -> Iterator[Path]:
        return (self._path(index) for index in range(len(self.paths_B)))

    def name(self, index: int) -> str:
        return str(self._path(index))

    def encoded(self, index: int) -> bytes:
        return self._path(index).read_bytes()

    def order(self, indices_B: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(len(indices_B))

    def _path(self, index: int) -> Path:
        return self.folder / os.fsdecode(self.paths_B[index])


def open_class_folders(folder: Path) -> EncodedData:
    """Find images whose class is the folder they are in; classes are numbered in the order of their names."""
    split_folders = _find_splits(folder)
    class_names = tuple(sorted(path.name for path in _subfolders(split_folders["train"])))
    if not class_names:
        raise UserError(f"{split_folders['train']} has no class folders; put the images of each class into one")
    splits = {}
    for split, path in split_folders.items():
        pairs = _find_images(path, class_names)
        splits[split] = FolderImages(
            folder=folder,
            paths_B=np.array([os.fsencode(image.relative_to(folder)) for image, _ in pairs], dtype=np.bytes_),
            labels_B=np.array([label for _, label in pairs], dtype=np.int64),
        )
    return EncodedData(folder=folder, splits=splits, class_names=class_names)


def _find_splits(folder: Path) -> dict[str, Path]:
    """The folder of each split; the whole folder is `train` when no sub-folder is named after a split."""
    found: dict[str, Path] = {}
    for path in _subfolders(folder):
        split = split_of_name(path.name)
        if split is None:
            continue
        if split in found:
            raise UserError(f"{found[split]} and {path} are both {split} images; keep one of them")
        found[split] = path
    if not found:
        return {"train": folder}
    check_has_train(found, folder)
    return {split: found[split] for split in ("train", "validation", "test") if split in found}


def _find_images(folder: Path, class_names: tuple[str, ...]) -> list[tuple[Path, int]]:
    pairs = []
    for class_folder in _subfolders(folder):
        if class_folder.name not in class_names:
            raise UserError(
                f"class folder {class_folder} is not among the {len(class_names)} training classes; "
                "add training images or remove it"
            )
        images = sorted(
            path
            for path in class_folder.rglob("*")
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
        if not images:
            raise UserError(
                f"class folder {class_folder} has no images ({', '.join(sorted(SUFFIXES))}); add some or remove it"
            )
        pairs += [(path, class_names.index(class_folder.name)) for path in images]
    return pairs


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
