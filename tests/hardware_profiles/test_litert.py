"""LiteRT keeps the contract, and its precisions are those that converted models show."""

import numpy as np
import pytest
import torch
from onnx import helper

from hardware_profiles.errors import ProfileError
from hardware_profiles.runtimes import Runtime, get_runtime
from hardware_profiles.runtimes.onnx_runtime import OnnxRuntime
from nas.onnx_model import export_block
from nas.saturation import make_probes
from search_spaces import BlockSpec
from search_spaces.blocks import Port
from tests.hardware_profiles.runtime_contract import MODELS, RuntimeContract, model_bytes

pytest.importorskip("ai_edge_litert", reason="the extra 'litert' isn't installed")

from hardware_profiles.runtimes.litert import LiteRtRuntime, LiteRtSession


@pytest.fixture(autouse=True, scope="module")
def _converter() -> None:
    try:
        LiteRtRuntime()
    except ProfileError as error:
        pytest.skip(str(error))


class TestLiteRtRuntime(RuntimeContract):
    def make(self, *, num_threads: int = 1, device: str = "") -> Runtime:
        return LiteRtRuntime(num_threads=num_threads, device=device)


def operators(session: LiteRtSession) -> list[tuple[str, set[str]]]:
    """Name and types of inputs and outputs of each operator that a session's file holds."""
    interpreter = session._interpreter
    types = {tensor["index"]: np.dtype(tensor["dtype"]).name for tensor in interpreter.get_tensor_details()}
    return [
        (operator["op_name"], {types[index] for index in (*operator["inputs"], *operator["outputs"]) if index in types})
        for operator in interpreter._get_ops_details()
    ]


class Tokens(torch.nn.Module):
    """Adds to an image what a linear layer makes of its pixels, as a channel mixer does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        mixed_BTC = self.linear(x_BCHW.flatten(2).transpose(1, 2))
        return x_BCHW + mixed_BTC.transpose(1, 2).reshape(x_BCHW.shape)


def exported(layer: torch.nn.Module) -> tuple[bytes, str]:
    """A model whose images have as many channels as rows and columns, and its input's name."""
    spec = BlockSpec(name="layer", kind="mlp", reads=(Port(shape=(8, 8, 8)),))
    model = export_block(layer.eval(), spec)
    return model.SerializeToString(), model.graph.input[0].name


@pytest.mark.parametrize("layer", [torch.nn.Conv2d(8, 8, 3, padding=1), Tokens()])
def test_images_keep_their_axes_even_where_shapes_cannot_tell_them_apart(layer: torch.nn.Module) -> None:
    source, name = exported(layer)
    x = {name: np.random.default_rng(1).standard_normal((1, 8, 8, 8), dtype=np.float32)}
    [found], [expected] = LiteRtRuntime().load(source).run(x), OnnxRuntime().load(source).run(x)
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_convolution_has_no_transpositions_at_its_ends() -> None:
    session = LiteRtRuntime().load(exported(torch.nn.Conv2d(8, 8, 3, padding=1))[0])
    assert isinstance(session, LiteRtSession)
    names = [name for name, _ in operators(session)]
    assert "CONV_2D" in names
    assert "TRANSPOSE" not in names


def test_what_is_timed_keeps_its_inputs_whatever_else_the_session_runs() -> None:
    session = LiteRtRuntime().load(MODELS["fp32"])
    assert isinstance(session, LiteRtSession)
    x = RuntimeContract.x
    run = session.runner({"x0": x})
    session.run({"x0": -x})
    interpreter = run.__self__  # type: ignore[attr-defined]
    first, second = [], []
    for outputs in (first, second):
        run()
        outputs += [interpreter.get_tensor(index) for index in session._output_indices]
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, session.run({"x0": x}))


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic"])
def test_int8_is_right_but_multiplied_in_fp32_and_so_not_declared(precision: str) -> None:
    probe = next(make_probes([precision], 8))
    session = LiteRtRuntime().load(probe.source)
    assert isinstance(session, LiteRtSession)
    name, shape = probe.input
    np.testing.assert_allclose(session.run({name: np.ones(shape, np.float32)})[0], probe.expected, rtol=1e-4)
    products = [types for name, types in operators(session) if name in ("BATCH_MATMUL", "FULLY_CONNECTED")]
    assert products == [{"float32"}]
    assert precision not in LiteRtRuntime.precisions


@pytest.mark.parametrize("precision", ["w8", "w4"])
def test_weights_of_few_bits_are_refused_in_one_line(precision: str) -> None:
    with pytest.raises(ProfileError, match=r"(can't convert|refuses) the model: .*(?i:matmulnbits)") as caught:
        LiteRtRuntime().load(MODELS[precision])
    assert "\n" not in str(caught.value)


def test_a_model_that_computes_something_else_once_converted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = LiteRtRuntime()
    other = runtime.load(MODELS["fp32"])
    assert isinstance(other, LiteRtSession)
    monkeypatch.setattr(runtime._converter, "convert", lambda model: other._path)
    negated = model_bytes([helper.make_node("Neg", ["x0"], ["y"]), helper.make_node("Abs", ["x0"], ["z"])], {})
    with pytest.raises(ProfileError, match="output 'y' of the converted model isn't what ONNX Runtime computes"):
        runtime.load(negated)


def test_a_device_it_does_not_have_is_refused() -> None:
    assert LiteRtRuntime(device="cpu").device == "CPU"
    with pytest.raises(ProfileError, match="unknown device 'gpu'; available: CPU"):
        LiteRtRuntime(device="gpu")


def test_it_is_found_by_its_name() -> None:
    runtime = get_runtime("litert", num_threads=2)
    assert (runtime.name, runtime.num_threads) == ("litert", 2)


def test_nothing_is_told_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    LiteRtRuntime().load(MODELS["fp32"])
    assert capfd.readouterr().err == ""
