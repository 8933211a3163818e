"""In which precisions a device wants point-wise layers as convolutions: one network in both forms tells."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

import torch

from hardware_profiles.errors import ProfileError
from hardware_profiles.loading import noise
from hardware_profiles.measure import measure_interleaved
from hardware_profiles.runtimes import Runtime
from nas.calibration import calibrate
from nas.onnx_model import INPUT, export_network
from nas.profiling.plan import random_network
from search_spaces import BlockSpec, SearchSpace
from search_spaces.precision import uniform_policy

PRECISIONS = ("fp32", "int8")
"""Those that have the choice: dynamic and weight-only ones quantize products of matrices alone."""

UNMEASURED = ("fp32",)
"""Convolutions for a device that can't be asked: in fp32 they were never slower but in OpenVINO (DECISIONS)."""

BUDGET_S = 3.0


def find_convolutions(
    space: SearchSpace, runtime: Runtime, *, batch_size: int = 1, weight_bits: int = 8, budget_s: float = BUDGET_S
) -> tuple[str, ...]:
    """Precisions in which the middle network of a space runs faster here with 1x1 convolutions than with products.

    Its weights are random. `budget_s` seconds are for timing; loading takes some more.
    """
    precisions = [precision for precision in PRECISIONS if precision in runtime.precisions]
    specs, found = space.blocks(space.middle()), []
    image = noise((batch_size, *specs[0].reads[0].shape))
    for precision in precisions:
        with suppress(ProfileError):  # profiling will tell what the runtime refuses
            samplers = [
                runtime.load(model).sampler({INPUT: image})
                for model in _both_forms(specs, runtime, precision, batch_size, weight_bits)
            ]
            products, convolutions = measure_interleaved(samplers, budget_s=budget_s / len(precisions))
            if convolutions.latency_ms < products.latency_ms:
                found.append(precision)
    return tuple(found)


def _both_forms(
    specs: Sequence[BlockSpec], runtime: Runtime, precision: str, batch_size: int, weight_bits: int
) -> Iterator[bytes]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, x_BCHW = random_network(specs)
    policy = uniform_policy(specs, precision)
    for convolutions in ((), (precision,)):
        deployed = network.deploy(convolutions)
        ranges = calibrate(deployed, x_BCHW, signed=runtime.signed_activations)
        model = export_network(deployed, policy, ranges, batch_size=batch_size, weight_bits=weight_bits)
        yield model.SerializeToString()
