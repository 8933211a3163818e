"""Blocks as ONNX: export one, give it a precision, chain them to a network whose node names tell the blocks."""

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode, add_infer_metadata
from torch import nn

from nas.bfloat16 import in_bfloat16, opset, with_opset
from nas.calibration import OperatorRange, Ranges
from nas.quantization import WEIGHT_ONLY_BITS, check_policy
from nas.weight_only import weights_in_blocks
from search_spaces import BlockSpec, Network
from search_spaces.blocks.layers import file_form
from search_spaces.precision import QuantizationPolicy

OPSET = 17
INPUT, OUTPUT = "image", "logits"
"""Names of a whole network's input (B, C, H, W), normalised, and output (B, classes)."""
ZERO = "zero"
"""Name of the number that some activations are compared with."""


def export_block(block: nn.Module, spec: BlockSpec, *, batch_size: int = 1, precision: str = "fp32") -> onnx.ModelProto:
    """A deployed block as ONNX with fixed shapes; tensors are named `<stream>_in` and `<stream>_out`.

    Weights and activations are in fp32, the form of point-wise layers is that of `precision`.
    """
    inputs = tuple(torch.zeros(batch_size, *port.shape) for port in spec.reads)
    buffer = io.BytesIO()
    with file_form(block, precision), warnings.catch_warnings():
        # The TorchScript exporter: a block takes 10 ms, the newer one about a second.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            block.eval(),
            inputs,
            buffer,  # type: ignore[arg-type]  # declared for the newer exporter alone
            dynamo=False,
            opset_version=OPSET,
            input_names=[f"{port.stream}_in" for port in spec.reads],
            output_names=[f"{port.stream}_out" for port in spec.writes],
        )
    return onnx.load_from_string(buffer.getvalue())


def quantize_block(
    model: onnx.ModelProto, precision: str, ranges: Mapping[str, OperatorRange], *, weight_bits: int = 8
) -> onnx.ModelProto:
    """A block's model, exported for this precision, in it; `ranges` are in order of execution."""
    if precision == "fp32":
        return model
    if precision == "bf16":
        return in_bfloat16(model)
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    if precision in WEIGHT_ONLY_BITS:
        return _relus_as_max(weights_in_blocks(copied, WEIGHT_ONLY_BITS[precision]))
    inferred = onnx.shape_inference.infer_shapes(copied)
    add_infer_metadata(inferred)
    weighted = weighted_nodes(inferred.graph)
    if precision == "int8-dynamic":
        nodes = [node.name for node in weighted if node.op_type == "MatMul"]
        quantizer: Any = ONNXQuantizer(
            inferred, True, weight_bits < 8, QuantizationMode.IntegerOps, False, QuantType.QInt8, QuantType.QUInt8,
            None, nodes, [], ["MatMul"], {"MatMulConstBOnly": True},
        )  # fmt: skip
    else:
        weighted = [node for node, item in zip(weighted, ranges.values(), strict=True) if not item.exact]
        ranges = {path: item for path, item in ranges.items() if not item.exact}
        nodes = [node.name for node in weighted]
        quantizer = QDQQuantizer(
            inferred, True, weight_bits < 8, QuantType.QInt8, QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, _tensor_ranges(inferred.graph, weighted, ranges)), nodes, [],
            ["Conv", "MatMul", "Relu"], {"OpTypesToExcludeOutputQuantization": ["MatMul"], "MatMulConstBOnly": True,
            "TensorQuantOverrides": _signed_tensors(inferred.graph, weighted, ranges)},
        )  # fmt: skip
    if not nodes:
        return model
    quantizer.nodes_to_quantize = nodes + [node.name for node in inferred.graph.node if node.op_type == "Relu"]
    if precision == "int8":
        _quantize_biases(quantizer, inferred.graph, weighted)
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    _keep_stream(quantizer.model.model.graph, set(nodes))
    return _relus_as_max(quantizer.model.model)


def _quantize_biases(quantizer: QDQQuantizer, graph: onnx.GraphProto, weighted: Sequence[onnx.NodeProto]) -> None:
    """Mark what is added to a product of matrices as its bias, in int32.

    ONNX Runtime makes one operator of product and addition before it looks for quantized ones, and runs that in int8
    only if all three inputs are quantized; else it dequantizes the weights anew in every run.
    """
    weights = {initializer.name for initializer in graph.initializer}
    products = {node.output[0]: node for node in weighted if node.op_type == "MatMul"}
    for node in graph.node:
        for product, bias in (node.input, node.input[::-1]) if node.op_type == "Add" else ():
            if product in products and bias in weights:
                quantizer.quantize_bias_tensor(node.name, bias, *products[product].input)


def _keep_stream(graph: onnx.GraphProto, quantized: set[str]) -> None:
    """Let the residual addition, and whatever else isn't quantized, read the fp32 tensor, not its int8 copy."""
    producers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.name in quantized or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for index, name in enumerate(node.input):
            dequantize = producers.get(name)
            if dequantize is None or dequantize.op_type != "DequantizeLinear":
                continue
            quantize = producers.get(dequantize.input[0])
            original = producers.get(quantize.input[0]) if quantize is not None else None
            if quantize is not None and (original is None or original.name not in quantized):
                node.input[index] = quantize.input[0]


def _relus_as_max(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, changed in place, with max(x, 0) for each ReLU that no runtime fuses: after a product of matrices.

    Where onnxruntime-web may write over a ReLU's input, that takes it up to seven times as long as the maximum.
    """
    graph = model.graph
    producers = {name: node.op_type for node in graph.node for name in node.output}
    fused = {name for node in graph.node if node.op_type == "QuantizeLinear" for name in node.input}
    for node in graph.node:
        if node.op_type == "Relu" and producers.get(node.input[0]) != "Conv" and node.output[0] not in fused:
            node.op_type = "Max"
            node.input.append(ZERO)
            if not any(initializer.name == ZERO for initializer in graph.initializer):
                graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.float32), ZERO))
    return model


def weighted_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Convolutions and matrix multiplications whose second input is a weight, in order."""
    weights = {initializer.name for initializer in graph.initializer}
    return [node for node in graph.node if node.op_type in ("Conv", "MatMul") and node.input[1] in weights]


def _tensor_ranges(
    graph: onnx.GraphProto, weighted: Sequence[onnx.NodeProto], ranges: Mapping[str, OperatorRange]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The ranges calibrated in torch by tensor name. A convolution's output is that of its ReLU, where one follows."""
    relu = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "Relu"}
    found: dict[str, tuple[float, float]] = {}
    for node, item in zip(weighted, ranges.values(), strict=True):
        found[node.input[0]] = (item.input_low, item.input_high)
        for name in (node.output[0], relu.get(node.output[0])):
            if name is not None:
                found[name] = (item.output_low, item.output_high)
    return {name: (np.array(low, np.float32), np.array(high, np.float32)) for name, (low, high) in found.items()}


def _signed_tensors(
    graph: onnx.GraphProto, weighted: Sequence[onnx.NodeProto], ranges: Mapping[str, OperatorRange]
) -> dict[str, list[dict[str, Any]]]:
    """What ONNX Runtime's quantizer is told of tensors whose integers are signed, by name."""
    if not any(item.signed for item in ranges.values()):
        return {}
    signed = {"quant_type": QuantType.QInt8, "symmetric": True}
    found = _tensor_ranges(graph, weighted, ranges)
    return {name: [signed] for name, (low, _) in found.items() if low < 0}


def chain(models: Sequence[onnx.ModelProto], specs: Sequence[BlockSpec]) -> onnx.ModelProto:
    """One network of the blocks' models; every node and tensor is prefixed with the name of its block."""
    version = max(opset(model) for model in models)
    network: onnx.ModelProto | None = None
    tensors: dict[str, str] = {}
    for model, spec in zip(models, specs, strict=True):
        part = onnx.compose.add_prefix(with_opset(model, version), prefix=f"{spec.name}/")
        if network is None:
            network = part
        else:
            joints = [(tensors[port.stream], f"{spec.name}/{port.stream}_in") for port in spec.reads]
            _same_versions(network, part)
            network = onnx.compose.merge_models(network, part, io_map=joints)
        tensors |= {port.stream: f"{spec.name}/{port.stream}_out" for port in spec.writes}
    assert network is not None
    _same_versions(network)  # merging imports each set twice
    _rename(network.graph, network.graph.input[0].name, INPUT)
    _rename(network.graph, network.graph.output[0].name, OUTPUT)
    return network


def _same_versions(*models: onnx.ModelProto) -> None:
    """Quantizers raise versions and import further operator sets: give all models the union, each set once."""
    versions = {entry.domain: entry.version for model in models for entry in model.opset_import}
    ir_version = max(model.ir_version for model in models)
    for model in models:
        model.ir_version = ir_version
        del model.opset_import[:]
        model.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in versions.items())


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for value in (*graph.input, *graph.output):
        if value.name == old:
            value.name = new
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new


def export_network(
    network: Network, policy: QuantizationPolicy, ranges: Ranges, *, batch_size: int = 1, weight_bits: int = 8
) -> onnx.ModelProto:
    """A deployed network under a policy as one ONNX model. Raises what `nas.quantization.check_policy` raises."""
    check_policy(network, policy, ranges)
    models = [
        quantize_block(
            export_block(block, spec, batch_size=batch_size, precision=policy[spec.name]),
            policy[spec.name],
            ranges[spec.name],
            weight_bits=weight_bits,
        )
        for spec, block in zip(network.specs, network.blocks, strict=True)
    ]
    return chain(models, network.specs)
