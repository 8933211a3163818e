"""From any picture to the pixels a network sees: one function for training and `nas predict`, without torch."""

import numpy as np
from PIL import Image, ImageOps

GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"})
"""Pillow's modes without colour."""


def fit_image(image: Image.Image, *, image_size: int, num_channels: int, content_size: int) -> np.ndarray:
    """Return `image` as uint8 [C, image_size, image_size].

    Turned upright by its EXIF tag, transparent pixels on white, short side resized (bilinear, antialiased) to
    `content_size`, centre-cropped to a square, padded with zeros to `image_size`.

    Raises:
        ValueError: the pixels are floating-point numbers, which have no range to convert from.
        OSError: the file the picture comes from is damaged.
    """
    ImageOps.exif_transpose(image, in_place=True)
    image = _convert(image, num_channels)
    if image.size != (content_size, content_size):
        scale = content_size / min(image.size)
        width, height = (max(content_size, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - content_size) // 2, (height - content_size) // 2
        image = image.crop((left, top, left + content_size, top + content_size))
    pixels_HWC = np.asarray(image).reshape(content_size, content_size, num_channels)
    return pad_images(pixels_HWC.transpose(2, 0, 1), image_size=image_size)


def pad_images(images: np.ndarray, *, image_size: int) -> np.ndarray:
    """Centre square images [..., S, S] in zeros of [..., image_size, image_size]."""
    missing = image_size - images.shape[-1]
    if missing == 0:
        return images
    sides = (missing // 2, missing - missing // 2)
    return np.pad(images, [(0, 0)] * (images.ndim - 2) + [sides, sides])


def _convert(image: Image.Image, num_channels: int) -> Image.Image:
    """To mode L or RGB."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; 8 or 16 bits are expected")
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip instead of scale
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")  # Lab, for one, has no direct way to grey; grey comes back unchanged
    return image.convert("L") if num_channels == 1 else image
