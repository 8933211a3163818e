"""Which form of point-wise layers a profile is made with, on devices that are faster with the one or the other."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from hardware_profiles.errors import ProfileError
from hardware_profiles.measure import Sampler
from hardware_profiles.runtimes import Session
from nas.profiling.forms import PRECISIONS, find_convolutions, unmeasured_convolutions
from tests.nas.profiling.test_local import Scripted, ScriptedSession
from tests.tiny_space import tiny

KINDS = {"attention": "Softmax", "linear_attention": "ReduceSum", "gated_mlp": "Mul", "mlp": "Add"}
"""Those that have both forms, and an operator that those before it haven't."""

ALL = {(kind, precision) for kind in KINDS for precision in PRECISIONS}


class Choosy(Scripted):
    """Point-wise layers take 1 ms as products; as convolutions less for `likes`, kinds and precisions, else more."""

    def __init__(self, *, likes: Collection[tuple[str, str]], refuses_int8: bool = False) -> None:
        super().__init__()
        self.likes, self.refuses_int8 = likes, refuses_int8

    def load(self, model: bytes | str | Path) -> Session:
        assert isinstance(model, bytes)
        kinds = [node.op_type for node in onnx.load_from_string(model).graph.node]
        precision = "int8" if "QuantizeLinear" in kinds else "bf16" if "Cast" in kinds else "fp32"
        if self.refuses_int8 and precision == "int8":
            raise ProfileError("no such operator")
        liked = (next(kind for kind, operator in KINDS.items() if operator in kinds), precision) in self.likes
        return ChoosySession(self, 1e-3 * (kinds.count("MatMul") + (0.9 if liked else 1.1) * kinds.count("Conv")))


class ChoosySession(ScriptedSession):
    def __init__(self, runtime: Scripted, seconds: float) -> None:
        super().__init__(runtime)
        self.seconds = seconds

    def sampler(self, inputs: Mapping[str, np.ndarray]) -> Sampler:
        return lambda num_loops: self.seconds


@pytest.mark.parametrize("likes", [set(), {("mlp", "fp32")}, {("gated_mlp", "int8"), ("attention", "fp32")}, ALL])
def test_each_kind_and_precision_has_the_form_that_is_faster(likes: set[tuple[str, str]]) -> None:
    assert set(find_convolutions(tiny(), Choosy(likes=likes), budget_s=0.01)) == likes


def test_a_precision_that_the_runtime_refuses_has_no_convolutions() -> None:
    found = find_convolutions(tiny(), Choosy(likes=ALL, refuses_int8=True), budget_s=0.01)
    assert set(found) == {(kind, precision) for kind, precision in ALL if precision != "int8"}


def test_a_device_that_is_not_asked_has_convolutions_in_fp32() -> None:
    assert set(unmeasured_convolutions(tiny())) == {(kind, "fp32") for kind in KINDS}
