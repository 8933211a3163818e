"""A folder of class folders: `cat/1.jpg`, or `train/cat/1.jpg` and `test/cat/2.jpg`."""

from pathlib import Path

import numpy as np

from nas.data.cache import cache_key, read_cache, write_cache
from nas.data.decode import Arrays, allocate, counted, decode_images
from nas.data.splits import DecodedData, check_has_train, split_of_name
from nas.errors import UserError
from nas.progress import Progress

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Files taken for images; others are ignored."""


def load_class_folders(
    folder: Path, *, image_size: int, num_channels: int | None, cache_dir: Path, progress: Progress | None = None
) -> DecodedData:
    """Load images whose class is the folder they are in; classes are numbered in the order of their names."""
    split_folders = _find_splits(folder)
    class_names = tuple(sorted(path.name for path in _subfolders(split_folders["train"])))
    if not class_names:
        raise UserError(f"{split_folders['train']} has no class folders; put the images of each class into one")
    files = {split: _find_images(path, class_names) for split, path in split_folders.items()}
    paths = {split: [path for path, _ in pairs] for split, pairs in files.items()}
    options = {"classes": class_names, "image_size": image_size, "num_channels": num_channels}
    key = cache_key([path for group in paths.values() for path in group], folder=folder, options=options)
    splits = read_cache(cache_dir, key)
    if splits is None:
        labels = {split: np.array([label for _, label in pairs], dtype=np.int64) for split, pairs in files.items()}
        splits = _decode(paths, labels, image_size=image_size, num_channels=num_channels, progress=progress)
        write_cache(cache_dir, key, splits)
    return DecodedData(name=folder.resolve().name, splits=splits, class_names=class_names, content_size=image_size)


def _decode(
    paths: dict[str, list[Path]],
    labels: dict[str, np.ndarray],
    *,
    image_size: int,
    num_channels: int | None,
    progress: Progress | None,
) -> dict[str, Arrays]:
    every_path = [path for group in paths.values() for path in group]
    images_BCHW = allocate(len(every_path), num_channels=num_channels, image_size=image_size)
    all_grey = decode_images(
        every_path,
        name_of=lambda index: str(every_path[index]),
        out_BCHW=images_BCHW,
        content_size=image_size,
        progress=counted(progress, len(every_path), "images decoded"),
    )
    if all_grey and num_channels is None:
        images_BCHW = images_BCHW[:, :1]
    splits, start = {}, 0
    for split, group in paths.items():
        splits[split] = (np.ascontiguousarray(images_BCHW[start : start + len(group)]), labels[split])
        start += len(group)
    return splits


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
