"""Find the data a name, a path or a function of yours stands for."""

import os
import sys
from pathlib import Path

from nas.data.cache import default_cache_dir
from nas.data.dataset import ImageData
from nas.data.folders import SUFFIXES, open_class_folders
from nas.data.named import NAMED
from nas.data.parquet import open_parquet
from nas.data.splits import make_splits
from nas.data.stream import exceeds_memory, stream_splits
from nas.data.stream_source import EncodedData, decode_all
from nas.data.stream_tar import open_tar
from nas.errors import UserError
from nas.progress import Progress
from search_spaces.errors import unknown_name
from search_spaces.plugins import imported

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
    stream: bool | None = None,
    progress: Progress | None = None,
) -> ImageData:
    """Load, decode and split a data set.

    Args:
        source: one of `DATA_NAMES`; a folder of class folders, of parquet files in the Hugging Face image layout or of
            webdataset tar files, divided into `train` and `test` or `validation` where it is; or
            `my_package.data:load`, a function that is called with `image_size`, `num_channels`, `num_validation`,
            `seed` and returns an `ImageData` (see `from_arrays`).
        image_size: side of the square images returned. Other sizes are resized and cropped; 28-pixel Fashion-MNIST is
            padded for sizes up to 32.
        num_channels: 1 (grey) or 3 (RGB); by default what the data has.
        num_validation: images in the validation split; by default a tenth of the training images, at most 5,000.
        seed: chooses the validation images.
        cache_dir: where downloads and decoded images are kept; `$HYBRIDNAS_CACHE` or `~/.cache/hybridnas` by default.
        stream: leave the training images of a folder on disk and decode them whenever they are read; by default when
            the decoded images take more than half of the memory that is free.

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
    if source not in NAMED and folder.is_dir():
        encoded = _open_folder(folder)
        if stream is None:
            stream = exceeds_memory(encoded, image_size=image_size, num_channels=num_channels)
        if stream:
            return stream_splits(
                encoded,
                image_size=image_size,
                num_channels=num_channels,
                num_validation=num_validation,
                seed=seed,
                progress=progress,
            )
        decoded = decode_all(
            encoded, image_size=image_size, num_channels=num_channels, cache_dir=cache_path, progress=progress
        )
        return make_splits(decoded, num_validation=num_validation, seed=seed)
    _check_source(source, folder)
    if stream:
        raise UserError(f"data set {source} cannot be streamed, only a folder can; leave stream out")
    if source in NAMED:
        decoded = NAMED[source](image_size=image_size, num_channels=num_channels, cache_dir=cache_path)
        return make_splits(decoded, num_validation=num_validation, seed=seed)
    return _call(source, image_size=image_size, num_channels=num_channels, num_validation=num_validation, seed=seed)


def _open_folder(folder: Path) -> EncodedData:
    """Parquet files, else tar files unless they lie beside images, else class folders."""
    if any(folder.rglob("*.parquet")):
        return open_parquet(folder)
    if any(folder.rglob("*.tar")) and not any(path.suffix.lower() in SUFFIXES for path in folder.rglob("*")):
        return open_tar(folder)
    return open_class_folders(folder)


def _check_source(source: str, folder: Path) -> None:
    """Raise a `UserError` unless `source` is a name or a dotted path."""
    if source in NAMED:
        return
    if folder.exists():
        raise UserError(f"data set {source} is a file; give the folder that holds it")
    if _looks_like_path(source):
        raise UserError(f"data set folder {source} does not exist; give an existing one or {', '.join(DATA_NAMES)}")
    if ":" not in source:
        raise UserError(unknown_name("data set", source, DATA_NAMES))


def _looks_like_path(source: str) -> bool:
    return source.startswith((".", "~")) or "/" in source or os.sep in source


def _call(
    source: str, *, image_size: int, num_channels: int | None, num_validation: int | None, seed: int
) -> ImageData:
    """Call the function a dotted path names; modules of the working directory are found too."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    function = imported("data set", source, error=UserError)
    data = function(image_size=image_size, num_channels=num_channels, num_validation=num_validation, seed=seed)
    if not isinstance(data, ImageData):
        raise UserError(f"data set {source} returned {type(data).__name__}; return nas.data.from_arrays(...)")
    if data.image_size != image_size or num_channels not in (None, data.num_channels):
        raise UserError(
            f"data set {source} returned {data.num_channels}-channel images of size {data.image_size}; "
            f"{num_channels or 'any'} and {image_size} were asked for: pass the arguments on to from_arrays"
        )
    return data
