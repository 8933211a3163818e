"""OpenVINO."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import openvino

from hardware_profiles.errors import ProfileError, one_line, unknown_name
from hardware_profiles.runtimes.runtime import Runtime, Session, check_threads


@cache
def _core() -> openvino.Core:
    """One for the process, and never let go: its plugin gives the process a stack for signal handlers and takes it away
    when it ends, so that the next signal, such as a child's end, would be fatal (2026.4)."""
    return openvino.Core()


class OpenVinoRuntime(Runtime):
    """OpenVINO on one of its devices, one stream, everything that isn't int8 in fp32."""

    name = "openvino"
    version = openvino.__version__.partition("-")[0]
    precisions: tuple[str, ...] = ("fp32", "int8", "w8", "w4")
    """Those that compiled graphs show (2026.4, processor), and bf16 where the device has it. Dynamic int8 gives right
    results, but by products in fp32. Weights whose number of inputs isn't a whole number of blocks are unpacked when a
    model is loaded."""

    signed_activations = True
    """A zero point in the middle costs it a pass of its own: whole networks in int8 took 1.2 to 1.5 times as long."""

    def __init__(self, *, num_threads: int = 1, device: str = "") -> None:
        self.num_threads = check_threads(num_threads)
        self._core = _core()
        self.device = device.upper() or "CPU"
        if self.device not in self._core.available_devices:
            raise ProfileError(unknown_name("device of OpenVINO", device, self._core.available_devices))
        if "BF16" in self._core.get_property(self.device, "OPTIMIZATION_CAPABILITIES"):
            self.precisions = (*self.precisions, "bf16")

    def load(self, model: bytes | str | Path) -> Session:
        if not isinstance(model, bytes) and not Path(model).is_file():
            raise ProfileError(f"no model file {str(model)!r}; export the model first")
        options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": "f32"}
        if self.device == "CPU":  # not every device knows these properties
            options["INFERENCE_NUM_THREADS"] = str(self.num_threads)
            # Else inputs of products with weights in few bits are rounded to int8, in groups of 32.
            options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = "0"
        try:
            read = self._core.read_model(model if isinstance(model, bytes) else str(model))
            return OpenVinoSession(self._core.compile_model(read, self.device, options))
        except RuntimeError as error:
            what = "the model" if isinstance(model, bytes) else f"model file {str(model)!r}"
            raise ProfileError(f"OpenVINO {self.version} refuses {what}: {one_line(error)}") from error


class OpenVinoSession(Session):
    """A model compiled by `OpenVinoRuntime`; it runs one call at a time."""

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        self._compiled = compiled
        # Tensors may have several names (an input that is handed on as output); the node keeps ONNX's.
        self._ports = {port.get_node().get_friendly_name(): port for port in compiled.inputs}
        self._request = compiled.create_infer_request()

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        self._check(inputs)
        _bind(self._request, self._ports, inputs)
        self._infer(self._request)
        return [tensor.data.copy() for tensor in self._request.output_tensors]

    def runner(self, inputs: Mapping[str, np.ndarray]) -> Callable[[], object]:
        # Tensors set once, outputs looked at in place: 9 us a call for two operators, start_async and wait 17 us
        # (version 2026.4, one thread, best of 30 x 50 calls).
        self._check(inputs)
        request = self._compiled.create_infer_request()
        bound = _bind(request, self._ports, inputs)
        self._infer(request)
        infer = request.infer

        def run_bound(_alive: object = bound) -> None:  # the tensors point into these arrays
            infer(share_outputs=True)

        return run_bound

    def _infer(self, request: openvino.InferRequest) -> None:
        try:
            request.infer(share_outputs=True)
        except RuntimeError as error:
            raise ProfileError(f"the model can't run on these inputs: {one_line(error)}") from error

    def _check(self, inputs: Mapping[str, np.ndarray]) -> None:
        """OpenVINO itself would cast other types."""
        if set(inputs) != set(self._ports):
            raise ProfileError(f"inputs {sorted(inputs)} don't fit; the model takes {sorted(self._ports)}")
        for name, port in self._ports.items():
            value, dtype, shape = inputs[name], port.get_element_type().to_dtype(), port.get_partial_shape()
            if value.dtype != dtype or not shape.compatible(openvino.PartialShape(list(value.shape))):
                raise ProfileError(
                    f"input {name!r} is {value.dtype} of shape {value.shape}; the model takes {dtype} of {shape}"
                )


def _bind(
    request: openvino.InferRequest, ports: Mapping[str, openvino.ConstOutput], inputs: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """Set the request's inputs to arrays, which it doesn't own: the caller keeps what is returned alive."""
    arrays = [np.ascontiguousarray(inputs[name]) for name in ports]
    for port, array in zip(ports.values(), arrays, strict=True):
        request.set_tensor(port, openvino.Tensor(array, shared_memory=True))
    return arrays
