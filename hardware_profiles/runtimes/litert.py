"""LiteRT, once TensorFlow Lite."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from ai_edge_litert.interpreter import Interpreter

from hardware_profiles.errors import ProfileError, one_line, unknown_name
from hardware_profiles.loading import noise
from hardware_profiles.runtimes.onnx_runtime import OnnxRuntime
from hardware_profiles.runtimes.runtime import Runtime, Session, check_threads
from hardware_profiles.runtimes.tflite import TO_NCHW, TO_NHWC, ConversionError, channels_last, find_converter

TOLERANCE = 0.05
"""Of an output's largest value: fp32 is off by 1e-6, values at a rounding boundary by a level."""


class LiteRtRuntime(Runtime):
    """LiteRT's interpreter with XNNPACK on the processor; images are in NHWC there, converted outside of what is timed.

    Raises:
        ProfileError: onnx2tf is missing or doesn't start.
    """

    name = "litert"
    precisions = ("fp32",)
    """onnx2tf (2.6) writes every other precision as products in fp32 between roundings, `MatMulNBits` not at all."""
    device = "CPU"

    def __init__(self, *, num_threads: int = 1, device: str = "") -> None:
        if device.upper() not in ("", self.device):
            raise ProfileError(unknown_name("device", device, [self.device]))
        self.num_threads = check_threads(num_threads)
        self._converter = find_converter()
        self.version = f"{version('ai-edge-litert')}, onnx2tf {self._converter.version}"

    def load(self, model: bytes | str | Path) -> Session:
        reference = OnnxRuntime().load(model)  # says what is wrong with the file
        what = "the model" if isinstance(model, bytes) else f"model file {str(model)!r}"
        read = onnx.load_model_from_string(model if isinstance(model, bytes) else Path(model).read_bytes())
        inputs, outputs = _ends(read.graph.input), _ends(read.graph.output)
        try:
            converted = self._converter.convert(channels_last(read).SerializeToString(deterministic=True))
        except ConversionError as error:
            raise ProfileError(f"onnx2tf {self._converter.version} can't convert {what}: {error}") from error
        x = {end.name: noise(end.shape).astype(end.dtype) for end in inputs}
        expected = reference.run(x)
        try:
            return LiteRtSession(converted, inputs, outputs, (x, expected), num_threads=self.num_threads)
        except (RuntimeError, ValueError) as error:
            raise ProfileError(f"LiteRT {self.version} refuses {what}: {one_line(error)}") from error


class End(NamedTuple):
    """An input or output of an ONNX model."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]


class LiteRtSession(Session):
    """A model loaded by `LiteRtRuntime`; it runs one call at a time.

    Raises:
        RuntimeError: LiteRT can't run the model.
        ValueError: the model's inputs or outputs are others, or the outputs of `sample`.
    """

    def __init__(
        self,
        path: Path,
        inputs: list[End],
        outputs: list[End],
        sample: tuple[Mapping[str, np.ndarray], Sequence[np.ndarray]],
        *,
        num_threads: int,
    ) -> None:
        """Load the file `path`; `sample` is inputs and right outputs, by which it learns the outputs' axes."""
        self._path, self._inputs, self._num_threads = path, inputs, num_threads
        self._interpreter = self._new_interpreter()
        self._input_indices = _indices(self._interpreter.get_input_details(), [end.name for end in inputs])
        self._output_indices = _indices(self._interpreter.get_output_details(), [end.name for end in outputs])
        x, expected = sample
        found = self._run(x)
        self._orders = [_order(y, right, end.name) for y, right, end in zip(found, expected, outputs, strict=True)]

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        outputs = zip(self._run(inputs), self._orders, strict=True)
        return [np.ascontiguousarray(y.transpose(order)) for y, order in outputs]

    def _run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs with the axes they have in the file."""
        self._set(self._interpreter, inputs)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._output_indices]

    def runner(self, inputs: Mapping[str, np.ndarray]) -> Callable[[], object]:
        # An interpreter of its own, whose inputs are set once: a run doesn't write to them.
        interpreter = self._new_interpreter()
        self._set(interpreter, inputs)
        interpreter.invoke()
        return interpreter.invoke

    def _new_interpreter(self) -> Interpreter:
        with _silence():
            interpreter = Interpreter(str(self._path), num_threads=self._num_threads)
            interpreter.allocate_tensors()
        return interpreter

    def _set(self, interpreter: Interpreter, inputs: Mapping[str, np.ndarray]) -> None:
        names = [end.name for end in self._inputs]
        if set(inputs) != set(names):
            raise ProfileError(f"inputs {sorted(inputs)} don't fit; the model takes {sorted(names)}")
        for end, index in zip(self._inputs, self._input_indices, strict=True):
            x = inputs[end.name]
            if (x.dtype, x.shape) != (end.dtype, end.shape):
                raise ProfileError(
                    f"input {end.name!r} is {x.dtype} of shape {x.shape}; the model takes {end.dtype} of {end.shape}"
                )
            interpreter.set_tensor(index, np.ascontiguousarray(x.transpose(TO_NHWC) if x.ndim == len(TO_NHWC) else x))


def _ends(values: Iterable[onnx.ValueInfoProto]) -> list[End]:
    ends = []
    for value in values:
        tensor = value.type.tensor_type
        shape = tuple(axis.dim_value for axis in tensor.shape.dim)
        if 0 in shape:
            raise ProfileError(f"the shape of {value.name!r} isn't fixed; export the model for one batch size")
        ends.append(End(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape))
    return ends


def _indices(details: list[dict[str, Any]], names: list[str]) -> list[int]:
    """Of the file's tensors of these names; ValueError when it has others."""
    found = {detail["name"]: detail["index"] for detail in details}
    if set(found) != set(names):
        raise ValueError(f"onnx2tf made {sorted(found)} of {sorted(names)}")
    return [found[name] for name in names]


def _order(found: np.ndarray, expected: np.ndarray, name: str) -> tuple[int, ...]:
    """In which an output's axes are the expected ones; ValueError when the values are others in every order.

    Asked for NHWC, onnx2tf leaves some outputs in NCHW, and of equal sizes shapes don't tell which.
    """
    limit = TOLERANCE * np.abs(expected).max(initial=0.0)
    same = tuple(range(found.ndim))
    for order in (same, TO_NCHW) if found.ndim == len(TO_NCHW) else (same,):
        ordered = found.transpose(order)
        if ordered.shape == expected.shape and np.abs(ordered - expected).max(initial=0.0) <= limit:
            return order
    raise ValueError(f"output {name!r} of the converted model isn't what ONNX Runtime computes")


@contextmanager
def _silence() -> Iterator[None]:
    """LiteRT tells on standard error which delegate it uses, in the midst of progress bars; its errors are raised."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
