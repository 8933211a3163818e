"""Which form of point-wise layers a profile is made with, on devices that are faster with the one or the other."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from hardware_profiles.errors import ProfileError
from hardware_profiles.measure import Sampler
from hardware_profiles.runtimes import Session
from nas.profiling.forms import find_convolutions
from tests.nas.profiling.test_local import Scripted, ScriptedSession
from tests.tiny_space import tiny


class Choosy(Scripted):
    """A product of matrices takes 1 ms, a convolution in one of the precisions `likes` less and in others more."""

    def __init__(self, *, likes: tuple[str, ...], refuses_int8: bool = False) -> None:
        super().__init__()
        self.likes, self.refuses_int8 = likes, refuses_int8

    def load(self, model: bytes | str | Path) -> Session:
        assert isinstance(model, bytes)
        graph = onnx.load_from_string(model).graph
        precision = "int8" if any(node.op_type == "QuantizeLinear" for node in graph.node) else "fp32"
        if self.refuses_int8 and precision == "int8":
            raise ProfileError("no such operator")
        convolution_ms = 0.9 if precision in self.likes else 1.1
        kinds = [node.op_type for node in graph.node]
        return ChoosySession(self, 1e-3 * (kinds.count("MatMul") + convolution_ms * kinds.count("Conv")))


class ChoosySession(ScriptedSession):
    def __init__(self, runtime: Scripted, seconds: float) -> None:
        super().__init__(runtime)
        self.seconds = seconds

    def sampler(self, inputs: Mapping[str, np.ndarray]) -> Sampler:
        return lambda num_loops: self.seconds


@pytest.mark.parametrize("likes", [(), ("fp32",), ("int8",), ("fp32", "int8")])
def test_each_precision_has_the_form_that_is_faster(likes: tuple[str, ...]) -> None:
    assert find_convolutions(tiny(), Choosy(likes=likes), budget_s=0.01) == likes


def test_a_precision_that_the_runtime_refuses_has_no_convolutions() -> None:
    assert find_convolutions(tiny(), Choosy(likes=("fp32", "int8"), refuses_int8=True), budget_s=0.01) == ("fp32",)
