"""Exported files, run by ONNX Runtime, against torch."""

from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
import torch

from hardware_profiles.runtimes import get_runtime
from nas.onnx_model import INPUT, OUTPUT, export_block, export_network, quantize_block, weighted_nodes
from nas.quantization import simulate
from search_spaces import BlockSpec, Network
from search_spaces.blocks import block_class
from search_spaces.precision import PRECISIONS, QuantizationPolicy, uniform_policy
from tests.nas.quantized_networks import deployed, random_candidate, rms, run
from tests.search_spaces.block_cases import CASES
from tests.tiny_space import tiny

SPACE = tiny()
BITS = 7
"""Products of 7-bit weights are exact on every processor; of 8-bit ones, x86 without VNNI saturates some."""

RUNTIME = get_runtime("onnxruntime")
INT8_CASES = [
    (name, precision)
    for name, spec in CASES.items()
    for precision in block_class(spec.kind).precisions[1:]
    if precision in RUNTIME.precisions
]

each_form = pytest.mark.parametrize("convolutions", [(), ("fp32", "int8")], ids=["products", "convolutions"])


def additions_of_copies(graph: onnx.GraphProto) -> list[str]:
    """Additions that read an int8 copy of something other than a quantized operator's result."""
    producers = {output: node for node in graph.node for output in node.output}
    found = []
    for node in graph.node:
        for name in node.input if node.op_type == "Add" else ():
            source = producers.get(name)
            if source is None or source.op_type != "DequantizeLinear":
                continue
            quantize = producers.get(source.input[0])
            origin = producers.get(quantize.input[0]) if quantize is not None else None
            if quantize is not None and (origin is None or origin.op_type not in ("Conv", "Relu", "MatMul")):
                found.append(node.name)
    return found


@torch.no_grad()
@each_form
@pytest.mark.parametrize("spec", CASES.values(), ids=CASES)
def test_fp32_block_equals_torch(spec: BlockSpec, convolutions: tuple[str, ...]) -> None:
    network, _, x_BCHW = deployed((spec,), count=4, convolutions=convolutions)
    model = export_block(network.blocks[0], spec, batch_size=4)
    torch.testing.assert_close(run(RUNTIME, model, x_BCHW, 4), network(x_BCHW), atol=1e-4, rtol=1e-4)


@torch.no_grad()
@each_form
@pytest.mark.parametrize(("case", "precision"), INT8_CASES)
def test_int8_block_is_what_was_simulated(case: str, precision: str, convolutions: tuple[str, ...]) -> None:
    spec = CASES[case]
    network, ranges, x_BCHW = deployed((spec,), count=4, convolutions=convolutions)
    exported = export_block(network.blocks[0], spec, precision=precision)
    model = quantize_block(exported, precision, ranges[spec.name], weight_bits=BITS)
    expected = simulate(network, uniform_policy((spec,), precision), ranges, weight_bits=BITS)(x_BCHW)
    found = run(RUNTIME, model, x_BCHW)
    assert rms(found - expected) < 0.05 * rms(network(x_BCHW) - expected)
    assert additions_of_copies(model.graph) == []


@torch.no_grad()
@each_form
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("seed", range(4))
def test_network_in_random_precisions_is_what_was_simulated(
    seed: int, batch_size: int, convolutions: tuple[str, ...]
) -> None:
    candidate = random_candidate(SPACE, seed)
    specs = SPACE.blocks(candidate.architecture)
    network, ranges, x_BCHW = deployed(specs, seed, convolutions=convolutions)
    options = {"batch_size": batch_size, "weight_bits": BITS}
    plain = run(RUNTIME, export_network(network, QuantizationPolicy(), ranges, **options), x_BCHW, batch_size)
    torch.testing.assert_close(plain, network(x_BCHW), atol=1e-4, rtol=1e-4)
    policies = [candidate.policy, *(uniform_policy(specs, precision) for precision in RUNTIME.precisions[1:])]
    for policy in policies:
        model = export_network(network, policy, ranges, **options)
        onnx.checker.check_model(model)
        expected = simulate(network, policy, ranges, **options)(x_BCHW)
        assert rms(run(RUNTIME, model, x_BCHW, batch_size) - expected) < 0.3 * rms(plain - expected)


def test_file_names_its_blocks_and_its_ends() -> None:
    candidate = random_candidate(SPACE, 1)
    specs = SPACE.blocks(candidate.architecture)
    network, ranges, _ = deployed(specs)
    model = export_network(network, uniform_policy(specs, "int8"), ranges, batch_size=4)
    assert [value.name for value in model.graph.input] == [INPUT]
    assert [value.name for value in model.graph.output] == [OUTPUT]
    shapes = [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*model.graph.input, *model.graph.output)]
    assert shapes == [[4, 1, 32, 32], [4, 4]]
    owners = [node.name.split("/")[0] for node in model.graph.node]
    assert list(dict.fromkeys(owners)) == [spec.name for spec in specs]


@each_form
@pytest.mark.parametrize("case", CASES)
def test_weighted_nodes_are_the_operators_in_their_order(case: str, convolutions: tuple[str, ...]) -> None:
    spec = CASES[case]
    network, ranges, _ = deployed((spec,), convolutions=convolutions)
    graph = export_block(network.blocks[0], spec).graph
    assert len(weighted_nodes(graph)) == len(ranges[spec.name])


@pytest.mark.parametrize("case", ["mlp", "gated mlp", "attention", "linear attention"])
def test_pointwise_layers_have_the_form_of_their_precision(case: str) -> None:
    spec = CASES[case]
    network, _, _ = deployed((spec,), convolutions=("fp32",))
    kinds = {}
    for precision in ("fp32", "int8"):
        graph = export_block(network.blocks[0], spec, precision=precision).graph
        pointwise = [node for node in weighted_nodes(graph) if "local" not in node.name]
        kinds[precision] = {node.op_type for node in pointwise}
    assert kinds == {"fp32": {"Conv"}, "int8": {"MatMul"}}
    transposed = [n for n in export_block(network.blocks[0], spec).graph.node if n.op_type == "Transpose"]
    assert transposed == [] or "attention" in case  # there, inside products


def test_quantizing_leaves_the_fp32_model_alone() -> None:
    spec = CASES["mlp"]
    network, ranges, _ = deployed((spec,))
    model = export_block(network.blocks[0], spec)
    before = model.SerializeToString()
    small = quantize_block(model, "int8", ranges[spec.name])
    assert model.SerializeToString() == before
    assert small.ByteSize() < 0.6 * model.ByteSize()
    assert quantize_block(model, "w4", {}).ByteSize() < 0.7 * quantize_block(model, "w8", {}).ByteSize()
    assert model.SerializeToString() == before
    assert quantize_block(model, "fp32", {}) is model
    assert isinstance(network, Network)


@torch.no_grad()
@each_form
def test_no_weights_are_dequantized_while_an_int8_file_runs(tmp_path: Path, convolutions: tuple[str, ...]) -> None:
    network, ranges, _ = deployed(SPACE.blocks(SPACE.largest()), count=4, convolutions=convolutions)
    model = export_network(network, uniform_policy(network.specs, "int8"), ranges, weight_bits=BITS)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(tmp_path / "optimized.onnx").graph
    stored = {initializer.name for initializer in graph.initializer}
    assert not [node.name for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in stored]
    assert {"QLinearConv", "QGemm"} <= {node.op_type for node in graph.node}


def test_int8_reads_the_image_as_it_is() -> None:
    spec = CASES["stem, stride 2"]
    network, ranges, _ = deployed((spec,))
    model = quantize_block(export_block(network.blocks[0], spec), "int8", ranges[spec.name])
    first, second = (node for node in model.graph.node if node.op_type == "Conv")
    assert first.input[0] == model.graph.input[0].name
    assert second.input[0].endswith("DequantizeLinear_Output")


@each_form
@pytest.mark.parametrize(("case", "precision"), INT8_CASES)
def test_each_relu_of_a_quantized_file_is_one_that_runtimes_fuse(
    case: str, precision: str, convolutions: tuple[str, ...]
) -> None:
    spec = CASES[case]
    network, ranges, _ = deployed((spec,), convolutions=convolutions)
    exported = export_block(network.blocks[0], spec, precision=precision)
    graph = quantize_block(exported, precision, ranges[spec.name]).graph
    convolved = {node.output[0] for node in graph.node if node.op_type == "Conv"}
    quantized = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    relus = [node for node in graph.node if node.op_type == "Relu"]
    assert [node.name for node in relus if node.input[0] not in convolved and node.output[0] not in quantized] == []


def test_a_file_imports_each_set_of_operators_once() -> None:
    network, ranges, _ = deployed(SPACE.blocks(SPACE.largest()), count=4)
    for precision in PRECISIONS:
        model = export_network(network, uniform_policy(network.specs, precision), ranges)
        domains = [entry.domain for entry in model.opset_import]
        assert len(domains) == len(set(domains))
