"""The shipped runtimes keep the contract, and runtimes are found by name."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from hardware_profiles.errors import ProfileError
from hardware_profiles.runtimes import RUNTIMES, Runtime, get_runtime
from hardware_profiles.runtimes.onnx_runtime import OnnxRuntime
from hardware_profiles.runtimes.openvino import OpenVinoRuntime, OpenVinoSession
from nas.onnx_model import export_block, quantize_block
from search_spaces import BlockSpec
from search_spaces.blocks import Port
from tests.hardware_profiles.runtime_contract import MODELS, RuntimeContract


class TestOnnxRuntime(RuntimeContract):
    def make(self, *, num_threads: int = 1, device: str = "") -> Runtime:
        return OnnxRuntime(num_threads=num_threads, device=device)


class TestOpenVinoRuntime(RuntimeContract):
    def make(self, *, num_threads: int = 1, device: str = "") -> Runtime:
        return OpenVinoRuntime(num_threads=num_threads, device=device)

    def test_the_compiled_graph_of_static_int8_multiplies_integers(self) -> None:
        session = OpenVinoRuntime().load(MODELS["int8"])
        assert isinstance(session, OpenVinoSession)
        graph = session._compiled.get_runtime_model()
        executed = [{key: value.astype(str) for key, value in node.get_rt_info().items()} for node in graph.get_ops()]
        products = [node for node in executed if node["layerType"] in ("FullyConnected", "MatMul")]
        assert [node["runtimePrecision"] for node in products] in (["i8"], ["u8"])


@pytest.mark.parametrize("precision", ["w8", "w4"])
def test_openvino_computes_in_fp32_with_weights_of_few_bits(precision: str) -> None:
    spec = BlockSpec(name="linear", kind="mlp", reads=(Port(layout="BTC", shape=(4, 64)),))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        linear = torch.nn.Linear(64, 64).eval()
    model = quantize_block(export_block(linear, spec), precision, {})
    x = np.random.default_rng(0).standard_normal((1, 4, 64), dtype=np.float32)
    inputs, source = {model.graph.input[0].name: x}, model.SerializeToString()
    expected = OnnxRuntime().load(source).run(inputs)
    np.testing.assert_allclose(OpenVinoRuntime().load(source).run(inputs), expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("name", ["CUDA", "cuda", "CUDAExecutionProvider"])
def test_any_installed_execution_provider_is_a_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    runtime = OnnxRuntime(device=name)
    assert runtime.device == "CUDA"
    with pytest.raises(ProfileError, match="can't start CUDAExecutionProvider here; install what it needs"):
        runtime.load(MODELS["fp32"])  # the installed ONNX Runtime hasn't it after all, and would run without


def test_another_provider_leaves_to_the_processor_what_it_cannot_execute() -> None:
    others = [name for name in ort.get_available_providers() if name != "CPUExecutionProvider"]
    if not others:
        pytest.skip("ONNX Runtime was built with the CPU provider alone")
    x = {"x0": RuntimeContract.x}
    session = OnnxRuntime(device=others[0]).load(MODELS["int8"])
    np.testing.assert_array_equal(session.run(x), OnnxRuntime().load(MODELS["int8"]).run(x))
    session.runner(x)()


@pytest.mark.parametrize("name", sorted(RUNTIMES.keys() - {"browser", "litert"}))  # they have tests of their own
def test_a_registered_runtime_is_found_by_its_own_name(name: str) -> None:
    runtime = get_runtime(name, num_threads=2)
    assert runtime.name == name
    assert runtime.num_threads == 2


def test_a_dotted_path_needs_no_registration() -> None:
    assert isinstance(get_runtime("hardware_profiles.runtimes.onnx_runtime:OnnxRuntime"), OnnxRuntime)


def test_a_runtime_that_is_not_installed_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "hardware_profiles.runtimes.openvino")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ProfileError, match="runtime 'openvino' can't be imported .*; pip install 'hybridnas"):
        get_runtime("openvino")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("onnxruntme", r"unknown runtime 'onnxruntme'; available: .*\. Did you mean onnxruntime\?"),
        ("no_such_package:Runtime", "No module named"),
        ("hardware_profiles.runtimes:Missing", "no attribute 'Missing'"),
        ("hardware_profiles.errors:ProfileError", "isn't a Runtime"),
    ],
)
def test_what_is_no_runtime_is_refused(name: str, rule: str) -> None:
    with pytest.raises(ProfileError, match=rule):
        get_runtime(name)


SIGNAL_AFTER_OPENVINO = """
import gc, signal, sys
from hardware_profiles.runtimes import get_runtime

signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
first = get_runtime("openvino").load(sys.argv[1])
second = get_runtime("openvino").load(sys.argv[1])
del first
gc.collect()
del second
gc.collect()
signal.raise_signal(signal.SIGUSR1)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no signals of the user's own")
def test_signals_are_handled_after_openvino_is_gone(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(MODELS["fp32"])
    command = [sys.executable, "-c", SIGNAL_AFTER_OPENVINO, str(tmp_path / "model.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n")
