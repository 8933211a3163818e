"""Static int8 by the tools that others would take for a runtime, each as it comes, with the same images."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from nas.data import ImageData
from nas.evaluation import NUM_CALIBRATION_IMAGES, batches
from nas.onnx_model import INPUT


def quantize_by_onnxruntime(source: Path, folder: Path, data: ImageData, batch_size: int) -> Path:
    """The file `source` in int8 by ONNX Runtime's tool, per channel."""
    target, prepared = folder / "onnxruntime-int8.onnx", folder / "prepared.onnx"
    quant_pre_process(str(source), str(prepared))
    reader = CalibrationImages(calibration_batches(data, batch_size))
    quantize_static(str(prepared), str(target), reader, quant_format=QuantFormat.QDQ, per_channel=True)
    return target


def quantize_by_nncf(source: Path, folder: Path, data: ImageData, batch_size: int) -> Path:
    """The file `source` in int8 by NNCF, as a file of OpenVINO's own format (weights are beside it)."""
    import nncf
    import openvino

    images = [x_BCHW.contiguous().numpy() for x_BCHW in calibration_batches(data, batch_size)]
    quantized = nncf.quantize(openvino.Core().read_model(source), nncf.Dataset(images), subset_size=len(images))
    target = folder / "nncf-int8.xml"
    openvino.save_model(quantized, target, compress_to_fp16=False)
    return target


PEERS: Mapping[str, tuple[str, Callable[[Path, Path, ImageData, int], Path]]] = {
    "onnxruntime": ("onnxruntime-int8", quantize_by_onnxruntime),
    "browser": ("onnxruntime-int8", quantize_by_onnxruntime),
    "openvino": ("nncf-int8", quantize_by_nncf),
}
"""Name and tool by runtime."""


def calibration_batches(data: ImageData, batch_size: int) -> Iterator[torch.Tensor]:
    """Training images at the target's batch."""
    return batches(data.calibration_images(NUM_CALIBRATION_IMAGES), data, batch_size)


class CalibrationImages(CalibrationDataReader):  # type: ignore[misc]
    """Hands ONNX Runtime's calibration one batch after the other."""

    def __init__(self, x_BCHW: Iterator[torch.Tensor]) -> None:
        self._x_BCHW = x_BCHW

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The model's input, or None at the end."""
        batch = next(self._x_BCHW, None)
        return None if batch is None else {INPUT: batch.contiguous().numpy()}
