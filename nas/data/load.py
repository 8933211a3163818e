"""Find the data a name, a path or a function of yours stands for."""

import importlib
import os
import sys
from pathlib import Path

from nas.data.cache import default_cache_dir
from nas.data.dataset import ImageData
from nas.data.folders import load_class_folders
from nas.data.named import NAMED
from nas.data.parquet import load_parquet
from nas.data.splits import make_splits
from nas.errors import UserError
from nas.progress import Progress
from search_spaces.errors import unknown_name

DATA_NAMES: tuple[str, ...] = tuple(NAMED)
"""Data sets known by name."""

MIN_IMAGE_SIZE = 8


def load_data(
    source: str,
    *,
    image_size: int,
    num_channels: int | None = None,
    num_validation: int | None = None,
    seed: int = 0,
    cache_dir: Path | str | None = None,
    progress: Progress | None = None,
) -> ImageData:
    """Load, decode and split a data set.

    Args:
        source: one of `DATA_NAMES`; a folder of class folders or of parquet files in the Hugging Face image layout,
            divided into `train` and `test` or `validation` where it is; or `my_package.data:load`, a function that is
            called with `image_size`, `num_channels`, `num_validation`, `seed` and returns an `ImageData`
            (see `from_arrays`).
        image_size: side of the square images returned. Other sizes are resized and cropped; 28-pixel Fashion-MNIST is
            padded for sizes up to 32.
        num_channels: 1 (grey) or 3 (RGB); by default what the data has.
        num_validation: images in the validation split; by default a tenth of the training images, at most 5,000.
        seed: chooses the validation images.
        cache_dir: where downloads and decoded images are kept; `$HYBRIDNAS_CACHE` or `~/.cache/hybridnas` by default.

    Raises:
        UserError: there is no such data, or it cannot be used as it is.
    """
    if image_size < MIN_IMAGE_SIZE:
        raise UserError(f"image size {image_size} is too small; choose {MIN_IMAGE_SIZE} or more")
    if num_channels not in (None, 1, 3):
        raise UserError(f"{num_channels} channels are not possible; choose 1 (grey) or 3 (RGB)")
    if num_validation is not None and num_validation < 1:
        raise UserError(f"{num_validation} validation images are too few; choose 1 or more")
    cache_path = Path(cache_dir).expanduser() if cache_dir is not None else default_cache_dir()
    folder = Path(source).expanduser()
    if source in NAMED:
        decoded = NAMED[source](image_size=image_size, num_channels=num_channels, cache_dir=cache_path)
    elif folder.is_dir():
        load = load_parquet if any(folder.rglob("*.parquet")) else load_class_folders
        decoded = load(
            folder, image_size=image_size, num_channels=num_channels, cache_dir=cache_path, progress=progress
        )
    elif folder.exists():
        raise UserError(f"data set {source} is a file; give the folder that holds it")
    elif _looks_like_path(source):
        raise UserError(f"data set folder {source} does not exist; give an existing one or {', '.join(DATA_NAMES)}")
    elif ":" in source:
        return _call(source, image_size=image_size, num_channels=num_channels, num_validation=num_validation, seed=seed)
    else:
        raise UserError(unknown_name("data set", source, DATA_NAMES))
    return make_splits(decoded, num_validation=num_validation, seed=seed)


def _looks_like_path(source: str) -> bool:
    return source.startswith((".", "~")) or "/" in source or os.sep in source


def _call(
    source: str, *, image_size: int, num_channels: int | None, num_validation: int | None, seed: int
) -> ImageData:
    """Call the function a dotted path names; modules of the working directory are found too."""
    module_name, _, function_name = source.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"cannot import data set {source}: {error}; write my_package.module:function") from error
    data = function(image_size=image_size, num_channels=num_channels, num_validation=num_validation, seed=seed)
    if not isinstance(data, ImageData):
        raise UserError(f"data set {source} returned {type(data).__name__}; return nas.data.from_arrays(...)")
    if data.image_size != image_size or num_channels not in (None, data.num_channels):
        raise UserError(
            f"data set {source} returned {data.num_channels}-channel images of size {data.image_size}; "
            f"{num_channels or 'any'} and {image_size} were asked for: pass the arguments on to from_arrays"
        )
    return data
