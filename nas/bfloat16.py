"""Blocks in bfloat16, simulated in torch and as ONNX: casts at both ends, and between them every tensor in 16 bits."""

import copy
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.version_converter import convert_version
from torch import nn
from torch.overrides import TorchFunctionMode

from search_spaces.blocks.layers import file_form

OPSET = 22
"""The first in which convolutions and pooling take bfloat16."""

FUSED = {"add": "conv2d"}
"""What OpenVINO 2026.4 does in one operator with the product before it, so that between the two nothing is rounded."""


class Bfloat16Block(nn.Module):
    """A block with parameters in bfloat16 all whose operators round what they give to it."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = copy.deepcopy(block)
        with torch.no_grad():
            for tensor in (*self.block.parameters(), *self.block.buffers()):
                tensor.copy_(to_bfloat16(tensor))

    def forward(self, *streams: torch.Tensor) -> Any:
        rounded = [x if hasattr(x, "is_bfloat16") else to_bfloat16(x) for x in streams]
        with file_form(self.block, "bf16"), _RoundedResults():
            results = _read(self.block(*rounded))
        for result in results if isinstance(results, tuple) else (results,):
            result.is_bfloat16 = True  # the next block need not round it again
        return results


class _RoundedResults(TorchFunctionMode):
    """Rounds what functions of torch return to bfloat16, but for views of their argument and what ReLU hands on.

    What may be fused with the next function is rounded when another one reads it.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, in_place = func.__name__.strip("_"), func.__name__.endswith("_")
        args = [_read(argument, name) for argument in args]
        found = func(*args, **{key: _read(argument, name) for key, argument in (kwargs or {}).items()})
        if not (isinstance(found, torch.Tensor) and found.is_floating_point()):
            return found
        if name == "relu" or (not in_place and _share_memory(found, args[0] if args else None)):
            return found
        found.unrounded = name if name in FUSED.values() else None  # type: ignore[attr-defined]
        return found if found.unrounded else to_bfloat16(found, in_place=not found.requires_grad)  # type: ignore[attr-defined]


def _read(argument: Any, reader: str = "") -> Any:
    """An argument of a function, result of another or not: rounded unless the two are fused."""
    if type(argument) in (list, tuple):
        return type(argument)(_read(item, reader) for item in argument)
    before = getattr(argument, "unrounded", None)
    if before is None or before == FUSED.get(reader):
        return argument
    if not argument.requires_grad:
        argument.unrounded = None
    return to_bfloat16(argument, in_place=not argument.requires_grad)


def _share_memory(x: torch.Tensor, other: Any) -> bool:
    return isinstance(other, torch.Tensor) and x.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def to_bfloat16(x: torch.Tensor, *, in_place: bool = False) -> torch.Tensor:
    """Round to 8 bits of mantissa, in fp32; gradients pass."""
    rounded = x.to(torch.bfloat16)
    return x.copy_(rounded) if in_place else rounded.to(x.dtype)


def in_bfloat16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A block's fp32 model in bfloat16, its inputs and outputs still in fp32."""
    converted = with_opset(model, OPSET)
    graph = converted.graph
    for initializer in graph.initializer:
        _round(initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                _round(attribute.t)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.BFLOAT16
    del graph.value_info[:]
    inside = {value.name: f"{value.name}/bfloat16" for value in (*graph.input, *graph.output)}
    nodes = list(graph.node)
    for node in nodes:
        for names in (node.input, node.output):
            names[:] = [inside.get(name, name) for name in names]
    first = [_cast(value.name, inside[value.name], TensorProto.BFLOAT16) for value in graph.input]
    last = [_cast(inside[value.name], value.name, TensorProto.FLOAT) for value in graph.output]
    parts = [part for node in nodes for part in (_in_fp32(node) if node.op_type == "Softmax" else (node,))]
    ordered = [copy.deepcopy(node) for node in (*first, *parts, *last)]
    del graph.node[:]
    graph.node.extend(ordered)
    return converted


def _in_fp32(node: onnx.NodeProto) -> tuple[onnx.NodeProto, ...]:
    """An operator between casts: OpenVINO 2026.4 fuses bfloat16 attention wrongly where heads are as many as tokens."""
    [source], [target] = node.input, node.output
    inside = copy.deepcopy(node)
    inside.input[:], inside.output[:] = [f"{source}/fp32"], [f"{target}/fp32"]
    return (
        _cast(source, f"{source}/fp32", TensorProto.FLOAT),
        inside,
        _cast(f"{target}/fp32", target, TensorProto.BFLOAT16),
    )


def with_opset(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """The model by the operators of that version; nodes that this adds are named by what they write."""
    if opset(model) == version:
        return copy.deepcopy(model)
    converted = convert_version(model, version)
    for node in converted.graph.node:
        node.name = node.name or f"/{node.output[0]}"
    return converted


def opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a model is written in."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _round(tensor: onnx.TensorProto) -> None:
    """Change a tensor of fp32 in place; halves go to the even neighbour."""
    if tensor.data_type == TensorProto.FLOAT:
        values = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16))
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"/{target}/Cast", to=to)
