"""A runtime in numpy that adds pairs of int8 products in 16 bits, as x86 processors without VNNI do, or exactly."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from torch.nn import functional as F

from hardware_profiles.runtimes import Runtime, Session


class PairSums:
    """Products of unsigned and signed 8-bit integers, (M, K) by (K, N), added in pairs that stay within `limit`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __call__(self, a_MK: np.ndarray, b_KN: np.ndarray) -> np.ndarray:
        products_MKN = a_MK.astype(np.int64)[:, :, None] * b_KN.astype(np.int64)
        padded_MKN = np.pad(products_MKN, ((0, 0), (0, len(b_KN) % 2), (0, 0)))
        return np.clip(padded_MKN[:, 0::2] + padded_MKN[:, 1::2], -self.limit - 1, self.limit).sum(axis=1)


class NumpyRuntime(Runtime):
    """Runs models of one weighted operator; activations start at 0 and weights reach their largest level."""

    name, version = "numpy", "1"
    precisions = ("fp32", "int8", "int8-dynamic")
    limit = 2**31 - 1

    def __init__(self, *, num_threads: int = 1, device: str = "") -> None:
        self.num_threads, self.device = num_threads, device or "CPU"

    def load(self, model: bytes | str | Path) -> Session:
        assert isinstance(model, bytes)
        return NumpySession(onnx.load_from_string(model), PairSums(self.limit))


class SaturatingRuntime(NumpyRuntime):
    """Pair sums saturate at 16 bits."""

    limit = 2**15 - 1


class BrokenRuntime(NumpyRuntime):
    """Pair sums saturate far too early, for weights of any number of bits."""

    limit = 2**10 - 1


class NumpySession(Session):
    """The graph by ONNX's reference, but for the weighted operator."""

    def __init__(self, model: onnx.ModelProto, sums: PairSums) -> None:
        for entry in model.opset_import:
            entry.version = 19 if entry.domain == "" else entry.version  # the oldest that the reference dequantizes
        arrays = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
        largest = max((int(np.abs(array.astype(int)).max()) for array in arrays if array.dtype == np.int8), default=0)
        self._reference = ReferenceEvaluator(model, new_ops=weighted_operators(sums, largest) if largest else [])

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return list(self._reference.run(None, dict(inputs)))

    def runner(self, inputs: Mapping[str, np.ndarray]) -> Callable[[], object]:
        return lambda: self.run(inputs)


def weighted_operators(sums: PairSums, largest: int) -> list[type[OpRun]]:
    """Operators that get back the integers behind dequantized values: weights up to `largest`, activations to 255."""

    def product(a_MK: np.ndarray, b_KN: np.ndarray) -> np.ndarray:
        steps = float(a_MK.max()) / 255, float(np.abs(b_KN).max()) / largest
        exact = sums(np.round(a_MK / steps[0]), np.round(b_KN / steps[1]))
        return (exact * steps[0] * steps[1]).astype(np.float32)

    class MatMul(OpRun):
        op_domain = ""

        def _run(self, a: np.ndarray, b_KN: np.ndarray) -> tuple[np.ndarray]:
            return (product(a.reshape(-1, a.shape[-1]), b_KN).reshape(*a.shape[:-1], -1),)

    class MatMulInteger(OpRun):
        op_domain = ""

        def _run(self, a: np.ndarray, b_KN: np.ndarray, a_zero: Any = None, b_zero: Any = None) -> tuple[np.ndarray]:
            found = sums(a.reshape(-1, a.shape[-1]), b_KN)
            return (found.reshape(*a.shape[:-1], -1).astype(np.int32),)

    class Conv(OpRun):
        op_domain = ""

        def _run(self, x: np.ndarray, weight: np.ndarray, **attributes: Any) -> tuple[np.ndarray]:
            groups, pad, outs = attributes["group"], attributes["pads"][0], []
            columns = [
                F.unfold(torch.from_numpy(part.copy()), weight.shape[-1], padding=pad).numpy()[0].T
                for part in np.split(x, groups, axis=1)
            ]
            for columns_LK, part in zip(columns, np.split(weight, groups), strict=True):
                outs.append(product(columns_LK, part.reshape(len(part), -1).T).T)
            return (np.concatenate(outs).reshape(1, len(weight), *x.shape[2:]),)

    return [MatMul, MatMulInteger, Conv]
