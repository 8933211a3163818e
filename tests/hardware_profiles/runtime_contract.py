"""What every runtime promises. Subclass `RuntimeContract` in a test module and return yours from `make`."""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hardware_profiles.errors import ProfileError
from hardware_profiles.measure import measure_interleaved
from hardware_profiles.runtimes import Runtime


def model_bytes(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], *, inputs: int = 1) -> bytes:
    """A model from "x0", "x1", ... of shape (1, 8) to "y" and "z", both of that shape."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(f"x{index}", TensorProto.FLOAT, [1, 8]) for index in range(inputs)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in ("y", "z")],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    operators = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=operators, ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


WEIGHT = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
FP32 = model_bytes(
    [helper.make_node("MatMul", ["x0", "w"], ["y"]), helper.make_node("Relu", ["y"], ["z"])], {"w": WEIGHT}
)
TWO_INPUTS = model_bytes(
    [helper.make_node("Add", ["x0", "x1"], ["y"]), helper.make_node("Sub", ["x0", "x1"], ["z"])], {}, inputs=2
)
SCALE = np.float32(1 / 32)
INT8 = model_bytes(
    [
        helper.make_node("QuantizeLinear", ["x0", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        helper.make_node("DequantizeLinear", ["wq", "scale", "zero"], ["w"]),
        helper.make_node("MatMul", ["y", "w"], ["z"]),
    ],
    {
        "scale": np.array(SCALE),
        "zero": np.array(0, np.int8),
        "wq": np.round(WEIGHT / SCALE).astype(np.int8),
    },
)
INT8_DYNAMIC = model_bytes(
    [
        helper.make_node("DynamicQuantizeLinear", ["x0"], ["q", "s", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "s", "zero"], ["y"]),
        helper.make_node("MatMul", ["y", "w"], ["z"]),
    ],
    {"w": WEIGHT},
)


def weight_only(bits: int) -> bytes:
    """`WEIGHT` in one block of 16 inputs for each of 8 outputs, unsigned with a zero point in the middle."""
    middle = 2 ** (bits - 1)
    levels_NK = np.full((8, 16), middle, np.uint8)
    levels_NK[:, :8] = (WEIGHT.T * (middle - 1)).round() + middle
    packed = levels_NK if bits == 8 else levels_NK[:, 0::2] | (levels_NK[:, 1::2] << 4)
    shape = {"K": 8, "N": 8, "bits": bits, "block_size": 16, "accuracy_level": 1}
    node = helper.make_node("MatMulNBits", ["x0", "wq", "scales"], ["z"], domain="com.microsoft", **shape)
    weights = {"wq": packed[:, None], "scales": np.full((8, 1), 1 / (middle - 1), np.float32)}
    return model_bytes([helper.make_node("Identity", ["x0"], ["y"]), node], weights)


BF16 = model_bytes(
    [
        helper.make_node("Identity", ["x0"], ["y"]),
        helper.make_node("Cast", ["x0"], ["x"], to=TensorProto.BFLOAT16),
        helper.make_node("Cast", ["w"], ["wb"], to=TensorProto.BFLOAT16),
        helper.make_node("MatMul", ["x", "wb"], ["p"]),
        helper.make_node("Cast", ["p"], ["z"], to=TensorProto.FLOAT),
    ],
    {"w": WEIGHT},
)
MODELS = {
    "fp32": FP32,
    "int8": INT8,
    "int8-dynamic": INT8_DYNAMIC,
    "w8": weight_only(8),
    "w4": weight_only(4),
    "bf16": BF16,
}


class RuntimeContract(ABC):
    """Tests that call nothing but the interface."""

    @abstractmethod
    def make(self, *, num_threads: int = 1, device: str = "") -> Runtime:
        """The runtime under test."""

    x = np.random.default_rng(0).uniform(-2, 2, (1, 8)).astype(np.float32)

    def test_it_says_what_it_is(self) -> None:
        runtime = self.make(num_threads=2)
        assert runtime.name
        assert runtime.version
        assert runtime.num_threads == 2
        assert runtime.device
        assert "fp32" in runtime.precisions
        assert set(runtime.precisions) <= set(MODELS)

    def test_outputs_come_in_the_models_order_and_agree_with_numpy(self) -> None:
        y, z = self.make().load(FP32).run({"x0": self.x})
        np.testing.assert_allclose(y, self.x @ WEIGHT, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(z, np.maximum(self.x @ WEIGHT, 0), rtol=1e-4, atol=1e-5)

    def test_inputs_go_by_name(self) -> None:
        ones = np.ones_like(self.x)
        y, z = self.make().load(TWO_INPUTS).run({"x1": ones, "x0": self.x})
        np.testing.assert_allclose(y, self.x + 1, rtol=1e-6)
        np.testing.assert_allclose(z, self.x - 1, rtol=1e-6)

    def test_batches_together_give_what_each_alone_gives(self) -> None:
        session = self.make().load(TWO_INPUTS)
        batches = [{"x0": self.x + step, "x1": step * self.x} for step in range(3)]
        for together, inputs in zip(session.run_all(batches), batches, strict=True):
            for found, alone in zip(together, session.run(inputs), strict=True):
                np.testing.assert_array_equal(found, alone)

    def test_every_declared_precision_runs_close_to_fp32(self) -> None:
        runtime = self.make()
        for precision in runtime.precisions:
            output = runtime.load(MODELS[precision]).run({"x0": self.x})
            expected = runtime.load(FP32).run({"x0": self.x})
            product = output[0] if precision == "fp32" else output[1]
            np.testing.assert_allclose(product, expected[0], atol=0.6 if precision == "w4" else 0.2)

    def test_a_file_and_its_bytes_give_the_same_outputs(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        path.write_bytes(FP32)
        runtime = self.make()
        expected = runtime.load(FP32).run({"x0": self.x})
        for source in (path, str(path)):
            np.testing.assert_array_equal(runtime.load(source).run({"x0": self.x}), expected)

    def test_threads_do_not_change_the_outputs(self) -> None:
        one, two = (self.make(num_threads=num).load(FP32).run({"x0": self.x}) for num in (1, 2))
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)

    def test_a_model_can_be_timed_and_outlives_the_callers_arrays(self) -> None:
        session = self.make().load(FP32)
        [stats] = measure_interleaved([session.sampler({"x0": self.x.copy()})], budget_s=0.02)
        assert 0 < stats.latency_ms < 100
        np.testing.assert_allclose(session.run({"x0": self.x})[0], self.x @ WEIGHT, rtol=1e-4, atol=1e-5)

    def test_a_runner_accepts_arrays_that_are_not_contiguous(self) -> None:
        wide = np.repeat(self.x, 2, axis=1)[:, ::2]
        assert not wide.flags.c_contiguous
        self.make().load(FP32).runner({"x0": wide})()

    def test_a_broken_model_is_refused_in_one_line(self, tmp_path: Path) -> None:
        path = tmp_path / "broken.onnx"
        path.write_bytes(FP32[: len(FP32) // 2])
        for source in (b"", b"not a model", path):
            with pytest.raises(ProfileError) as caught:
                self.make().load(source)
            assert "\n" not in str(caught.value)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ProfileError, match=r"nowhere\.onnx"):
            self.make().load(tmp_path / "nowhere.onnx")

    @pytest.mark.parametrize(
        "inputs",
        [
            {},
            {"wrong": np.zeros((1, 8), np.float32)},
            {"x0": np.zeros((1, 8), np.float32), "more": np.zeros((1, 8), np.float32)},
            {"x0": np.zeros((1, 9), np.float32)},
            {"x0": np.zeros((1, 8), np.float64)},
        ],
    )
    def test_inputs_that_do_not_fit_are_refused(self, inputs: dict[str, np.ndarray]) -> None:
        session = self.make().load(FP32)
        with pytest.raises(ProfileError):
            session.run(inputs)
        with pytest.raises(ProfileError):
            session.runner(inputs)
        with pytest.raises(ProfileError):
            session.sampler(inputs)

    def test_a_runtime_without_threads_is_refused(self) -> None:
        with pytest.raises(ProfileError, match="num_threads=0"):
            self.make(num_threads=0)

    def test_its_device_can_be_given_by_name(self) -> None:
        device = self.make().device
        assert self.make(device=device).device == self.make(device=device.lower()).device == device

    def test_an_unknown_device_is_refused_in_one_line_with_what_there_is(self) -> None:
        with pytest.raises(ProfileError, match=f"'abacus'; available: .*{self.make().device}") as caught:
            self.make(device="abacus")
        assert "\n" not in str(caught.value)
