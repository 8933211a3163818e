"""Decode and resize many images on all cores."""

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from nas.errors import UserError
from nas.preprocess import GREY_MODES, fit_image, pad_images
from nas.progress import Progress

Arrays = tuple[np.ndarray, np.ndarray]
"""uint8 images [B, C, H, W] and integer labels [B]."""

DAMAGED = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What Pillow's readers raise on damaged files."""

_CHUNK = 256
"""Images a thread takes at once, to keep the cost of handing out work small."""


def decode_images(
    files: Sequence[Path | bytes],
    *,
    name_of: Callable[[int], str],
    out_BCHW: np.ndarray,
    content_size: int,
    progress: Callable[[int], None],
) -> bool:
    """Decode image files, or their bytes, into `out_BCHW`; return whether all of them are grey.

    Raises:
        UserError: an image is damaged; `name_of(index)` names it in the message.
    """
    num_channels, image_size = out_BCHW.shape[1:3]

    def decode(index: int) -> bool:
        file = files[index]
        try:
            with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
                grey = image.mode in GREY_MODES
                out_BCHW[index] = fit_image(
                    image, image_size=image_size, num_channels=num_channels, content_size=content_size
                )
        except DAMAGED as error:
            reason = " ".join(str(error).split())
            raise UserError(f"cannot read the image {name_of(index)}: {reason}; replace or remove it") from error
        return grey

    def decode_chunk(start: int) -> tuple[int, bool]:
        indices = range(start, min(start + _CHUNK, len(files)))
        greys = [decode(index) for index in indices]
        return len(greys), all(greys)

    all_grey = True
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for count, grey in pool.map(decode_chunk, range(0, len(files), _CHUNK)):
                all_grey &= grey
                progress(count)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return all_grey


def counted(progress: Progress | None, total: int, message: str) -> Callable[[int], None]:
    """A function that is told how many more images are done, and reports the sum."""
    done = 0

    def report(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total, message)

    return report


def allocate(num_images: int, *, num_channels: int | None, image_size: int) -> np.ndarray:
    """An empty uint8 array [B, C, H, W]; three channels where the number isn't known yet.

    Raises:
        UserError: the images, and the copy made when splits are cut, do not fit into the memory that is free.
    """
    shape = (num_images, num_channels or 3, image_size, image_size)
    check_memory(shape)
    return np.empty(shape, dtype=np.uint8)


def check_memory(shape: tuple[int, ...]) -> None:
    """Raise a `UserError` when two uint8 arrays of `shape` do not fit into the memory that is free."""
    needed, available = 2 * int(np.prod(shape, dtype=np.int64)), psutil.virtual_memory().available
    if needed > available:
        raise UserError(
            f"{shape[0]} images of {shape[2]}x{shape[3]} need {needed / 2**30:.1f} GiB, {available / 2**30:.1f} GiB of "
            "memory are free; choose a smaller image size or fewer images"
        )


def fit_arrays(arrays: Arrays, *, image_size: int, num_channels: int | None, content_size: int) -> Arrays:
    """Resize, pad and convert decoded images [B, C, H, W] as `fit_image` does; labels stay as they are."""
    images_BCHW, labels_B = arrays
    if images_BCHW.dtype != np.uint8 or images_BCHW.ndim != 4 or images_BCHW.shape[1] not in (1, 3):
        raise UserError(
            f"images are {images_BCHW.dtype} {images_BCHW.shape}; uint8 [B, 1 or 3, H, W] is expected: convert them"
        )
    if len(images_BCHW) != len(labels_B):
        raise UserError(f"{len(images_BCHW)} images have {len(labels_B)} labels; give one label an image")
    num_channels = num_channels or images_BCHW.shape[1]
    check_memory((len(images_BCHW), num_channels, image_size, image_size))
    if images_BCHW.shape[1:] == (num_channels, content_size, content_size):
        return pad_images(images_BCHW, image_size=image_size), labels_B
    out_BCHW = np.empty((len(images_BCHW), num_channels, image_size, image_size), dtype=np.uint8)

    def fit(index: int) -> None:
        pixels_CHW = images_BCHW[index]
        image = Image.fromarray(pixels_CHW[0] if len(pixels_CHW) == 1 else pixels_CHW.transpose(1, 2, 0).copy())
        out_BCHW[index] = fit_image(image, image_size=image_size, num_channels=num_channels, content_size=content_size)

    def fit_chunk(start: int) -> None:
        for index in range(start, min(start + _CHUNK, len(images_BCHW))):
            fit(index)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(fit_chunk, range(0, len(images_BCHW), _CHUNK)):
            pass
    return out_BCHW, labels_B
