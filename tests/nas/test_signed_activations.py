"""Static int8 with signed activations, simulated and by the runtime that wants them."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from hardware_profiles.runtimes import get_runtime
from nas.calibration import SIGNED_ZERO, affine
from nas.data import ImageData
from nas.evaluator import target_evaluator
from nas.onnx_model import export_block, export_network, quantize_block
from nas.profiling.plan import plan_profile
from nas.quantization import simulate
from nas.saturation import make_probes
from nas.supernet import Supernet
from search_spaces import BlockSpec
from search_spaces.blocks import block_class
from search_spaces.precision import uniform_policy
from tests.hardware_profiles.profiles import make_space_profile
from tests.nas.quantized_networks import deployed, random_candidate, rms, run
from tests.search_spaces.block_cases import CASES
from tests.tiny_space import tiny

SPACE = tiny()
BITS = 7
"""Exact on every processor."""
RUNTIME = get_runtime("openvino")
INT8_CASES = {name: spec for name, spec in CASES.items() if "int8" in block_class(spec.kind).precisions}


def zero_points(graph: onnx.GraphProto) -> list[np.ndarray]:
    """Of activations."""
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return [tensors[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-1.27, 0.5, (0.01, SIGNED_ZERO)), (-0.5, 1.27, (0.01, SIGNED_ZERO)), (0.0, 2.55, (0.01, 0))],
)
def test_only_ranges_of_both_signs_are_symmetric(low: float, high: float, expected: tuple[float, int]) -> None:
    scale, zero = affine(low, high, signed=True)
    assert (pytest.approx(scale), zero) == expected


@torch.no_grad()
@pytest.mark.parametrize("spec", INT8_CASES.values(), ids=INT8_CASES)
def test_openvino_computes_what_was_simulated(spec: BlockSpec) -> None:
    assert RUNTIME.signed_activations
    network, ranges, x_BCHW = deployed((spec,), count=4, signed=True)
    model = quantize_block(export_block(network.blocks[0], spec), "int8", ranges[spec.name], weight_bits=BITS)
    found = zero_points(model.graph)
    assert found
    assert all((zero == 0).all() for zero in found)
    assert any(zero.dtype == np.int8 for zero in found)
    y = simulate(network, uniform_policy((spec,), "int8"), ranges, weight_bits=BITS)(x_BCHW)
    assert rms(run(RUNTIME, model, x_BCHW) - y) < 0.05 * rms(network(x_BCHW) - y)


@torch.no_grad()
@pytest.mark.parametrize("seed", range(4))
def test_a_network_in_random_precisions_is_what_was_simulated(seed: int) -> None:
    candidate = random_candidate(SPACE, seed, RUNTIME.precisions)
    specs = SPACE.blocks(candidate.architecture)
    network, ranges, x_BCHW = deployed(specs, seed, signed=True)
    for policy in (candidate.policy, uniform_policy(specs, "int8")):
        model = export_network(network, policy, ranges, weight_bits=BITS)
        onnx.checker.check_model(model, full_check=True)
        expected = simulate(network, policy, ranges, weight_bits=BITS)(x_BCHW)
        *off, worst = sorted(map(rms, run(RUNTIME, model, x_BCHW) - expected))
        rounding = rms(network(x_BCHW) - expected)
        assert off[-1] < 0.01 * rounding
        assert worst < 2 * rounding  # it may tip at a tie


def test_an_evaluator_calibrates_as_its_profile_says(tiny_data: ImageData) -> None:
    profile = make_space_profile(SPACE)
    for signed in (False, True):
        evaluator = target_evaluator(Supernet(SPACE), tiny_data, replace(profile, signed_activations=signed))
        _, ranges = evaluator.deployed(SPACE.smallest())
        assert {item.signed for operators in ranges.values() for item in operators.values()} == {signed}


def test_models_of_a_profile_are_signed_where_it_is() -> None:
    plan = plan_profile(SPACE, ("fp32", "int8"), signed_activations=True, num_fit=3, num_held_out=1)
    assert plan.signed_activations
    for row in plan.rows:
        if row.precision == "int8":
            assert all((zero == 0).all() for zero in zero_points(row.model.graph))


@torch.no_grad()
def test_probes_of_saturation_reach_the_largest_signed_values() -> None:
    for probe in make_probes(["int8"], 8, signed=True):
        model = onnx.load_from_string(probe.source)
        assert {zero.dtype for zero in zero_points(model.graph)} == {np.dtype(np.int8)}


def test_unsigned_files_are_as_they_were() -> None:
    """Runtimes that don't ask for it get unsigned integers with a zero point."""
    spec = CASES["downsample"]
    network, ranges, _ = deployed((spec,))
    model = quantize_block(export_block(network.blocks[0], spec), "int8", ranges[spec.name])
    assert {zero.dtype for zero in zero_points(model.graph)} == {np.dtype(np.uint8)}
    assert not get_runtime("onnxruntime").signed_activations
