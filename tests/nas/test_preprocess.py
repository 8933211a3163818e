"""Any picture becomes the pixels a network expects."""

import io

import numpy as np
import pytest
from PIL import Image

from nas.preprocess import fit_image, pad_images


def fit(image: Image.Image, *, size: int = 8, channels: int = 3, content: int | None = None) -> np.ndarray:
    return fit_image(image, image_size=size, num_channels=channels, content_size=content or size)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_is_converted(mode: str, channels: int) -> None:
    pixels = fit(Image.new(mode, (11, 9)), channels=channels)
    assert pixels.shape == (channels, 8, 8)
    assert pixels.dtype == np.uint8


def test_image_of_the_right_size_keeps_its_pixels() -> None:
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(fit(Image.fromarray(pixels_HWC)), pixels_HWC.transpose(2, 0, 1))


@pytest.mark.parametrize("size", [(30, 8), (8, 30), (7, 5), (1, 1), (1000, 3)])
def test_any_shape_is_cropped_to_a_square(size: tuple[int, int]) -> None:
    assert fit(Image.new("RGB", size, "white")).min() == 255


def test_wide_image_keeps_its_centre() -> None:
    image = Image.new("RGB", (24, 8), "black")
    image.paste("white", (8, 0, 16, 8))
    assert fit(image).min() == 255


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    image = Image.fromarray(np.full((8, 8), 0x8000, dtype=np.uint16))
    assert np.unique(fit(image, channels=1)).tolist() == [128]


def test_transparent_pixels_are_white() -> None:
    assert fit(Image.new("RGBA", (8, 8), (10, 20, 30, 0))).min() == 255


def test_picture_is_turned_upright() -> None:
    image = Image.new("L", (8, 8), 0)
    image.paste(255, (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    pixels_CHW = fit(Image.open(file), channels=1)
    assert pixels_CHW[0, :4].max() == 0
    assert pixels_CHW[0, 4:].min() == 255


def test_content_is_centred_in_zeros() -> None:
    pixels_CHW = fit(Image.new("L", (4, 4), 9), channels=1, content=4)
    expected = np.zeros((8, 8))
    expected[2:6, 2:6] = 9
    np.testing.assert_array_equal(pixels_CHW[0], expected)


def test_padding_by_an_odd_number_puts_the_extra_row_last() -> None:
    assert pad_images(np.ones((1, 2, 2)), image_size=3).tolist() == [[[1, 1, 0], [1, 1, 0], [0, 0, 0]]]


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="floating-point"):
        fit(Image.new("F", (8, 8)))
