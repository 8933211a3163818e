"""A small data set that can be learnt: stripes and checks with random phase, size and noise.

As a source of `load_data` or the command line: `tests.tiny_data:load`.
"""

import numpy as np

from nas.data import ImageData, from_arrays

CLASS_NAMES = ("horizontal", "vertical", "diagonal", "checks")
NUM_TRAIN = 600
NUM_TEST = 120


def load(
    *,
    image_size: int = 32,
    num_channels: int | None = None,
    num_validation: int | None = 120,
    seed: int = 0,
) -> ImageData:
    """480 training, 120 validation and 120 test images of four classes, one channel unless asked otherwise."""
    return from_arrays(
        "tiny",
        train=draw(NUM_TRAIN, size=32, rng=np.random.default_rng(1)),
        test=draw(NUM_TEST, size=32, rng=np.random.default_rng(2)),
        class_names=CLASS_NAMES,
        image_size=image_size,
        num_channels=num_channels,
        num_validation=num_validation,
        seed=seed,
    )


def draw(count: int, *, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images [count, 1, size, size] and their labels, classes in turn."""
    labels_B = np.arange(count) % len(CLASS_NAMES)
    y_HW, x_HW = np.mgrid[:size, :size]
    images_BCHW = np.empty((count, 1, size, size), dtype=np.uint8)
    for index, label in enumerate(labels_B):
        period, phase = rng.uniform(6, 10), rng.uniform(0, 2 * np.pi, size=2)
        wave_y = np.sin(2 * np.pi * y_HW / period + phase[0])
        wave_x = np.sin(2 * np.pi * x_HW / period + phase[1])
        diagonal = np.sin(2 * np.pi * (x_HW + y_HW) / period + phase[0])
        pattern = (wave_y, wave_x, diagonal, wave_y * wave_x)[label]
        noisy = 128 + 60 * pattern + rng.normal(0, 25, size=(size, size))
        images_BCHW[index, 0] = noisy.clip(0, 255)
    return images_BCHW, labels_B
