"""Deployed networks with random weights and the ranges of their operators, for tests."""

from collections.abc import Sequence

import numpy as np
import onnx
import torch

from hardware_profiles.runtimes import Runtime
from hardware_profiles.runtimes.onnx_runtime import OnnxRuntime
from nas.calibration import Ranges, calibrate
from search_spaces import BlockSpec, Network, SearchSpace
from search_spaces.precision import Candidate, CandidateSpace
from tests.search_spaces.block_cases import randomize


def deployed(
    specs: tuple[BlockSpec, ...],
    seed: int = 0,
    count: int = 8,
    *,
    signed: bool = False,
    convolutions: Sequence[str] = (),  # precisions, of all kinds
) -> tuple[Network, Ranges, torch.Tensor]:
    """A network, ranges over its images, and the images (count, C, H, W)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(specs, [spec.build() for spec in specs])
        randomize(network, seed)
        x_BCHW = torch.randn(count, *network.input_shape)
    network = network.eval().deploy([(spec.kind, precision) for spec in specs for precision in convolutions])
    return network, calibrate(network, x_BCHW, signed=signed), x_BCHW


def random_candidate(space: SearchSpace, seed: int, precisions: Sequence[str] = OnnxRuntime.precisions) -> Candidate:
    """Architecture and policy with every gene drawn uniformly."""
    rng, candidates = np.random.default_rng(seed), CandidateSpace(space, precisions=precisions)
    return candidates.candidate({c.name: c.values[rng.integers(len(c.values))] for c in candidates.choices})


def run(runtime: Runtime, model: onnx.ModelProto, x_BCHW: torch.Tensor, batch_size: int = 1) -> torch.Tensor:
    """What a runtime computes for images, a batch at a time."""
    session, name = runtime.load(model.SerializeToString()), model.graph.input[0].name
    return torch.cat([torch.from_numpy(session.run({name: x.numpy()})[0]) for x in x_BCHW.split(batch_size)])


def rms(difference: torch.Tensor) -> float:
    return float(difference.double().square().mean().sqrt())
