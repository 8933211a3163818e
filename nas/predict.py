"""Classify pictures with an exported model by its runtime alone, without torch, as a deployed program would."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from hardware_profiles.runtimes import Session, get_runtime
from nas.errors import UserError
from nas.preprocess import fit_image


class Prediction(NamedTuple):
    """The likeliest class of one picture."""

    path: Path
    class_name: str
    probability: float


def predict(folder: Path, images: list[Path]) -> list[Prediction]:
    """Classify `images` by the model in `folder`, in order.

    Raises:
        UserError, ProfileError: the folder holds no whole exported model, or a file is no picture.
    """
    session, preprocess, batch_size = _load(folder)
    x_BCHW = np.stack([_prepare(path, preprocess) for path in images])
    logits = []
    for start in range(0, len(images), batch_size):
        part = x_BCHW[start : start + batch_size]
        filled = np.concatenate([part, np.repeat(part[-1:], batch_size - len(part), axis=0)])  # the batch is fixed
        logits.append(session.run({"image": filled})[0][: len(part)])
    logits_BK = np.concatenate(logits).astype(np.float64)
    exp_BK = np.exp(logits_BK - logits_BK.max(axis=1, keepdims=True))
    probability_BK = exp_BK / exp_BK.sum(axis=1, keepdims=True)
    best_B = probability_BK.argmax(axis=1)
    names = preprocess["class_names"]
    return [
        Prediction(path, names[best], float(row_K[best]))
        for path, best, row_K in zip(images, best_B, probability_BK, strict=True)
    ]


def _load(folder: Path) -> tuple[Session, dict[str, Any], int]:
    """The model, how its images are prepared, and how many it takes at once."""
    wanted = ("image_size", "num_channels", "content_size", "mean", "std", "class_names")
    try:
        content = json.loads((folder / "preprocess.json").read_text(encoding="utf-8"))
        preprocess = {name: content[name] for name in wanted}
        batch_size = int(json.loads((folder / "architecture.json").read_text(encoding="utf-8"))["batch_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{folder}' holds no exported model ({_line(error)}); make one with `nas export`") from None
    return get_runtime("onnxruntime").load(folder / "model.onnx"), preprocess, batch_size


def _prepare(path: Path, preprocess: dict[str, Any]) -> np.ndarray:
    """Normalised float32 [C, H, W]."""
    try:
        with Image.open(path) as image:
            pixels_CHW = fit_image(
                image,
                image_size=preprocess["image_size"],
                num_channels=preprocess["num_channels"],
                content_size=preprocess["content_size"],
            )
    except UnidentifiedImageError:
        raise UserError(f"{path} is no picture that Pillow reads; give a PNG or JPEG file") from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"can't read the picture {path} ({_line(error)}); give a PNG or JPEG file") from None
    mean, std = (np.array(preprocess[name], np.float32)[:, None, None] for name in ("mean", "std"))
    return (pixels_CHW.astype(np.float32) / 255 - mean) / std


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
