"""ONNX Runtime, on the processor or by any other execution provider that is installed."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from hardware_profiles.errors import ProfileError, one_line, unknown_name
from hardware_profiles.measure import Sampler, timed
from hardware_profiles.runtimes.runtime import Runtime, Session, check_threads

_ORT_ERRORS = (
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotFound,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)
"""ONNX Runtime's exceptions have no common base class below Exception."""


AWAKE_S = 1e-3
"""How long several threads stay awake: longer than the parts that one thread does alone. So long untimed calls last at
least, for those of the session before to fall asleep.

By default it is tens of milliseconds: of 100 sessions in turn, a network of 3.1 ms took 5.7 to 11.7 in its first runs.
"""

_SUFFIX = "ExecutionProvider"


class OnnxRuntime(Runtime):
    """ONNX Runtime with all graph optimisations; a device is an execution provider, such as CPU, CUDA or TensorRT.

    What another provider can't execute runs on the processor.
    """

    name = "onnxruntime"
    version = ort.__version__
    precisions = ("fp32", "int8", "int8-dynamic", "w8", "w4")
    """Not fp16 and bf16: the CPU provider casts fp16 to fp32 and refuses bf16."""

    def __init__(self, *, num_threads: int = 1, device: str = "") -> None:
        self.num_threads = check_threads(num_threads)
        available = {name.removesuffix(_SUFFIX).lower(): name for name in ort.get_available_providers()}
        self._provider = available.get(device.lower().removesuffix(_SUFFIX.lower()) or "cpu")
        if self._provider is None:
            names = [name.removesuffix(_SUFFIX) for name in available.values()]
            raise ProfileError(unknown_name("execution provider", device, names))
        self.device = self._provider.removesuffix(_SUFFIX)

    def load(self, model: bytes | str | Path) -> Session:
        if not isinstance(model, bytes) and not Path(model).is_file():
            raise ProfileError(f"no model file {str(model)!r}; export the model first")
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.num_threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.spin_duration_us", f"{1e6 * AWAKE_S:.0f}")
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3  # errors only; warnings about unused initialisers would break the progress bar
        source = model if isinstance(model, bytes) else str(model)
        providers = list(dict.fromkeys([self._provider, f"CPU{_SUFFIX}"]))
        try:
            inference = ort.InferenceSession(source, options, providers=providers)
        except _ORT_ERRORS as error:
            what = "the model" if isinstance(model, bytes) else f"model file {str(model)!r}"
            raise ProfileError(f"ONNX Runtime {self.version} refuses {what}: {one_line(error)}") from error
        if self._provider not in inference.get_providers():  # it falls back without an error
            raise ProfileError(
                f"ONNX Runtime {self.version} can't start {self._provider} here; install what it needs, or leave "
                "--device away to run on the processor"
            )
        return OnnxSession(inference, awake_s=0.0 if self.num_threads == 1 else AWAKE_S)


class OnnxSession(Session):
    """A model loaded by `OnnxRuntime`."""

    def __init__(self, inference: ort.InferenceSession, *, awake_s: float) -> None:
        self._inference, self._awake_s = inference, awake_s
        self._input_names = [node.name for node in inference.get_inputs()]
        self._output_names = [node.name for node in inference.get_outputs()]

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        self._check_names(inputs)
        try:
            return list(self._inference.run(self._output_names, dict(inputs)))
        except _ORT_ERRORS as error:
            raise ProfileError(f"the model can't run on these inputs: {one_line(error)}") from error

    def runner(self, inputs: Mapping[str, np.ndarray]) -> Callable[[], object]:
        # Bound inputs and outputs: 2.6 us a call for an empty model, against 5.0 us for `run` with a ready feed
        # (and 37 us for run_with_ort_values); version 1.32, one thread, median of 40 x 50 calls.
        self.run(inputs)
        bound = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        binding = self._inference.io_binding()
        for name, value in bound.items():
            binding.bind_cpu_input(name, value)
        for name in self._output_names:
            binding.bind_output(name)
        run_with_iobinding = self._inference.run_with_iobinding

        def run_bound(_alive: object = bound) -> None:  # the binding points into these arrays without owning them
            run_with_iobinding(binding)

        return run_bound

    def sampler(self, inputs: Mapping[str, np.ndarray]) -> Sampler:
        return timed(self.runner(inputs), awake_s=self._awake_s)

    def _check_names(self, inputs: Mapping[str, np.ndarray]) -> None:
        if set(inputs) != set(self._input_names):
            raise ProfileError(f"inputs {sorted(inputs)} don't fit; the model takes {sorted(self._input_names)}")
